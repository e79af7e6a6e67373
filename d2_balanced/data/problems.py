"""What a check of a data set found: errors (training or evaluation would fail or lie), warnings, and a summary."""

from ..utils.errors import DataError

__all__ = ["Report"]

EXAMPLES = 5


class Report:
    """Findings about one data set.

    Attributes:
        title: the annotation file or data set the findings are about.
        errors, warnings: lists of messages; each names the first few places and how many there are.
        repairs: what is read otherwise than it is written ("ids written as text", ...).
        summary: dict of plain numbers (``images``, ``annotations``, ``per_class``, ...).
        image_paths: the image files of the data set; empty where it could not be read.
        identity: :class:`.identity.DatasetIdentity` of an annotation file that could be read; else None.
    """

    def __init__(self, title):
        self.title = title
        self.errors, self.warnings, self.repairs, self.summary = [], [], [], {}
        self.image_paths, self.identity = [], None

    def error(self, what, places=(), advice=""):
        """Adds an error that occurs at ``places`` (texts such as "image 3, annotation 7")."""
        self.errors.append(_message(what, places, advice))

    def warn(self, what, places=(), advice=""):
        """Adds a warning; the arguments are those of :meth:`error`."""
        self.warnings.append(_message(what, places, advice))

    def repair(self, what):
        """Adds something that is read otherwise than it is written, once."""
        if what not in self.repairs:
            self.repairs.append(what)

    def raise_if_errors(self, strict=False):
        """Raises one :class:`DataError` with all errors (``strict``: and warnings); returns the report without any."""
        if self.errors or (strict and self.warnings):
            more = "\n  Warnings are errors here (DATASETS.STRICT, data.strict, --strict)." if not self.errors else ""
            raise DataError(f"{self}{more}", self)
        return self

    def __str__(self):
        lines = [f"{self.title}: {len(self.errors)} error(s), {len(self.warnings)} warning(s)"]
        lines += [f"  error: {message}" for message in self.errors]
        lines += [f"  warning: {message}" for message in self.warnings]
        return _printable("\n".join(lines + _summary_lines(self.summary)))


def _message(what, places, advice):
    places = list(places)
    if places:
        more = f" and {len(places) - EXAMPLES} more" if len(places) > EXAMPLES else ""
        what = f"{what}: {'; '.join(places[:EXAMPLES])}{more}"
    return _printable(f"{what}. {advice}" if advice else what)


def _printable(text):
    """``text`` with halves of characters escaped: names in JSON may hold them, and no terminal or log takes them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _summary_lines(summary):
    lines = []
    for key, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items())
        lines.append(f"  {key.replace('_', ' ')}: {value}")
    return lines
