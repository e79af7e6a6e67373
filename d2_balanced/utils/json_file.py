"""JSON files that a user names: read in one way by every command, or refused with the file's name and what is wrong."""

import json

from .errors import DataError

__all__ = ["parse_json", "read_json"]


def read_json(path):
    """The content of a JSON file. ``DataError``, naming it, if it cannot be read or is not JSON."""
    try:
        with open(path, "rb") as file:
            return parse_json(file.read())[0]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except DataError as error:
        raise DataError(f"{path} {error}") from error


def parse_json(data):
    """(value, whether a byte order mark stood before it) of the bytes of a JSON file in UTF-8.

    NaN and Infinity, which JSON has not but many programs write, become floats.

    Raises:
        DataError: another encoding, no JSON, or a key that stands twice in one record with two values. The message
            continues "file X ...".
    """
    text = _decode(data)
    marked = text.startswith("\ufeff")
    try:
        return json.loads(text[1:] if marked else text, object_pairs_hook=_record), marked
    except RecursionError:
        raise DataError("is not a JSON file that can be read: its lists are nested too deeply") from None
    except _DoubleKey as error:
        raise DataError(str(error)) from None
    except ValueError as error:  # JSONDecodeError, and numbers of more digits than Python converts
        raise DataError(f"is not a JSON file: {error}. Was it copied completely?") from None


def _decode(data):
    encoding = json.detect_encoding(data)  # by its byte order mark and zero bytes, as RFC 4627 says
    if not encoding.startswith("utf-8"):
        raise DataError(f"is encoded in {encoding.upper()}; save it as UTF-8 (PowerShell: Set-Content -Encoding utf8)")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[max(error.start - 30, 0):error.start].decode("utf-8", "replace")
        raise DataError(
            f"is not encoded in UTF-8: byte 0x{data[error.start]:02x} at position {error.start}, after {before!r}. It "
            "may be in the encoding of one country (Windows-1252, GBK, ...), or no text at all; save it as UTF-8"
        ) from None


class _DoubleKey(ValueError):
    pass


def _record(pairs):
    """A dict, as Python makes it; but the second of two values of one key does not win without a word."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = [key for key, value in pairs if record[key] != value]
        if twice:
            shown = {key: record[key] for key in ("id", "image_id", "file_name", "name") if key in record}
            where = f"the record with {shown}" if shown else f"the record with the keys {sorted(record)[:8]}"
            raise _DoubleKey(f"has the key {twice[0]!r} twice in {where}, with different values")
    return record
