"""YAML that would hang the reader, overflow it or run code is refused at once, with the file and the line."""

import pytest

from d2_balanced.config import ConfigError
from d2_balanced.config.yaml_files import read_with_bases, read_yaml
from d2_balanced.config.yaml_loader import DEEPEST, MOST_NODES

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    "text, words",
    [
        (BOMB, f"found more than {MOST_NODES} values, those that aliases.*line 5"),
        ("[" * 100000, f"found more than {DEEPEST} levels.*line 1, column {DEEPEST + 1}"),
        ("- " * 1000 + "x", f"found more than {DEEPEST} levels"),
        ("a: &a [1, *a]", "found an alias inside of what it stands for"),
        ("a: &a {b: {c: *a}}", "found an alias inside of what it stands for"),
        ("a: *b", "found undefined alias"),
        ("a: [" + "x, " * MOST_NODES + "]", f"found more than {MOST_NODES} values"),
        ("a: !!int x", "cannot make int of 'x'"),
        ("a: 2020-99-99", "cannot make timestamp of '2020-99-99'"),
        ("a: !!bool perhaps", "cannot make bool of 'perhaps'"),
        ("a: 1\nb: 2\na: 3", "the key a is given twice"),
        ("a: !!python/object/apply:os.system [ls]", "asks for a Python object"),
        ("? [a, b]\n: 1", "unhashable|not a .safe. YAML"),
        ("_BASE_: 3", "expected a file or a list of files, got 3"),
        ("_BASE_: [other.yaml, {a: b}]", "expected a file or a list of files, got"),
        ("_BASE_: config.yaml", "_BASE_ goes in a circle"),
    ],
    ids=lambda value: value[:20],
)
def test_files_that_cannot_be_used(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"(?s)config.yaml.*({words})|{words}.*config.yaml"):
        read_with_bases(str(path))


def test_aliases_that_repeat_something_once_are_values(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a [1, {b: 2}]\nc: *a\nd: [*a, *a]")
    assert read_yaml(str(path)) == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": [[1, {"b": 2}]] * 2}


def test_bases_that_multiply_are_bounded(tmp_path):
    """Twenty files, each with the next one twice as its base, are a million files."""
    (tmp_path / "20.yaml").write_text("")
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: [{number + 1}.yaml, {number + 1}.yaml]")
    with pytest.raises(ConfigError, match="_BASE_ of .*0.yaml: it and its bases are more than 100 files"):
        read_with_bases(str(tmp_path / "0.yaml"))
