"""What the documents say about the code is so: paths, keys, make targets, import directions."""

import ast
import glob
import itertools
import os
import re

import pytest
from paths import ROOT

from d2_balanced.config import get_balanced_cfg

DOCS = ("README.md", "CONTRIBUTING.md", os.path.join("docs", "ARCHITECTURE.md"), os.path.join("docs", "GUIDE.md"))
MODULES = sorted(glob.glob(os.path.join(ROOT, "d2_balanced", "**", "*.py"), recursive=True))


def read(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read()


def code_in(text):
    """Everything that the document sets as code: `spans` and indented or fenced blocks."""
    blocks = re.findall(r"^(?: {4}.*\n)+|^```.*?^```", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text) + blocks


@pytest.mark.parametrize("document", DOCS)
def test_named_paths_exist(document):
    text = read(document)
    links = [os.path.join(os.path.dirname(document), target) for target in re.findall(r"\]\(([^):#]+)\)", text)]
    folders = "configs|docs|projects|requirements|tests|tools|utils|modeling|recording|engine|data|config|evaluation|analysis|tables"
    named = rf"(?<![\w/.])(?:{folders})/[\w./]*\w"
    paths = [path for code in code_in(text) for path in re.findall(named, code)]
    where = (ROOT, os.path.join(ROOT, "d2_balanced"))
    missing = [p for p in links + paths if not any(os.path.exists(os.path.join(folder, p)) for folder in where)]
    assert len(links + paths) > 3
    assert not missing


def test_named_config_keys_exist():
    key = r"\b(?:MODEL|SOLVER|DATASETS|TEST|INPUT)(?:\.[A-Z_0-9]+)+"
    named = {(document, name) for document in DOCS for name in re.findall(key, read(document))}
    assert len(named) > 10
    assert [each for each in sorted(named) if not is_config_key(each[1])] == []


def is_config_key(key):
    node = get_balanced_cfg()
    for part in key.split("."):
        if part not in node:
            return node.is_new_allowed()
        node = node[part]
    return True


def test_named_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), flags=re.MULTILINE))
    code = [code for document in DOCS for code in code_in(read(document))]
    named = {target for each in code for target in re.findall(r"\bmake ([a-z][\w-]*)", each)}
    assert named and named <= targets


def module_of(path):
    """``engine/open`` for the file d2_balanced/engine/open.py, ``engine`` for a folder's __init__.py."""
    name = os.path.relpath(path, os.path.join(ROOT, "d2_balanced"))[: -len(".py")].replace(os.sep, "/")
    return name[: -len("/__init__")] if name.endswith("/__init__") else name


FILES = {module_of(path): path for path in MODULES}


def imports_of(path):
    """The files of this package that a file imports, in functions too, as paths like ``utils/atomic``."""
    package = os.path.relpath(path, ROOT)[:-3].split(os.sep)[:-1]
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = "/".join(base + (node.module.split(".") if node.module else []))
            names = [f"{base}/{alias.name}" for alias in node.names]
            # What is no file of its own is something in the file that it is imported from.
            names = [name if name[len("d2_balanced/"):] in FILES else base for name in names]
        else:
            continue
        names = {name.replace(".", "/") for name in names}
        yield from (name[len("d2_balanced/"):] for name in names if name.startswith("d2_balanced/"))


IMPORTS = {name: {i for i in imports_of(path) if i in FILES and i != name} for name, path in FILES.items()}


# The rooms of the package, from the ground up (docs/ARCHITECTURE.md). A room imports itself and those above it here.
ROOMS = (
    "__init__", "compat", "utils", "arguments", "doctor", "modeling", "data", "evaluation", "config", "recording", "engine",
    "inference", "analysis", "tables", "tuning", "zoo", "train", "__main__",
)
# Python runs this file before every other one; it makes detectron2 importable, and is no room to import from.
GROUND = ("__init__", "compat")


def room_of(name):
    return name.split("/")[0]


def test_every_file_is_in_a_room():
    assert {room_of(name) for name in FILES} <= set(ROOMS)


@pytest.mark.parametrize("imported, importer", [
    (below, above) for above, below in itertools.combinations(ROOMS, 2) if above not in GROUND
])  # fmt: skip
def test_rooms_import_one_way(importer, imported):
    pairs = [(a, b) for a in FILES for b in IMPORTS[a] if (room_of(a), room_of(b)) == (importer, imported)]
    assert not pairs


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions count, too."""
    done, circles = set(), []

    def visit(name, trail):
        if name in trail:
            circles.append(" -> ".join(trail[trail.index(name):] + (name,)))
        elif name not in done:
            for imported in sorted(IMPORTS[name]):
                visit(imported, trail + (name,))
            done.add(name)

    for name in sorted(FILES):
        visit(name, ())
    assert not circles


@pytest.mark.parametrize("importer, never", [
    ("modeling/backbone", "modeling/roi_heads"),
    ("modeling/sampling", "modeling/roi_heads"),
    ("modeling/proposal_generator", "modeling/roi_heads"),
])  # fmt: skip
def test_seats_do_not_know_the_heads(importer, never):
    assert any(name.startswith(importer) for name in FILES)
    wrong = [name for name in FILES if name.startswith(importer) and any(i.startswith(never) for i in IMPORTS[name])]
    assert not wrong


ENDINGS = {".py", ".yaml", ".yml"}


def test_one_file_asks_how_a_config_ends():
    asking = {
        name for name, path in FILES.items() for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.Constant) and node.value in ENDINGS
    }  # fmt: skip
    assert asking == {"engine/open"}


def test_only_the_two_config_systems_ask_of_which_kind_a_config_is():
    asking = {
        name for name, path in FILES.items() for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
        and {"CfgNode", "DictConfig"} & {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}
    }  # fmt: skip
    assert {name for name in asking if room_of(name) != "config"} <= {"engine/from_yacs", "engine/from_lazy"}
    assert "config/yacs" in asking


def test_nothing_needs_what_the_pure_python_detectron2_lacks():
    text = "".join(read(path) for path in MODULES if not path.endswith(("compat.py", "doctor.py")))
    assert "model_zoo" not in re.sub(r"#.*|\"\"\".*?\"\"\"", "", text, flags=re.DOTALL)
    assert not re.search(r"from detectron2 import _C|detectron2\._C", re.sub(r"#.*", "", text))
