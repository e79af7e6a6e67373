"""What the documents say about the code is so: paths, keys, make targets, import directions."""

import ast
import glob
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
    folders = "configs|docs|projects|requirements|tests|tools|modeling|engine|data|config|evaluation|analysis"
    named = rf"(?<![\w/.])(?:{folders})/[\w./]*\w"
    paths = [path for code in code_in(text) for path in re.findall(named, code)]
    where = (ROOT, os.path.join(ROOT, "d2_balanced"))
    missing = [p for p in links + paths if not any(os.path.exists(os.path.join(folder, p)) for folder in where)]
    assert len(links + paths) > 3
    assert not missing


@pytest.mark.parametrize("document", DOCS)
def test_named_config_keys_exist(document):
    cfg = get_balanced_cfg()
    for key in re.findall(r"\b(?:MODEL|SOLVER|DATASETS|TEST|INPUT)(?:\.[A-Z_0-9]+)+", read(document)):
        node = cfg
        for part in key.split("."):
            if part not in node and node.is_new_allowed():
                break
            assert part in node, f"{document} names {key}"
            node = node[part]


@pytest.mark.parametrize("document", DOCS)
def test_named_make_targets_exist(document):
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), flags=re.MULTILINE))
    named = {target for code in code_in(read(document)) for target in re.findall(r"\bmake ([a-z][\w-]*)", code)}
    assert named <= targets


def imports_of(path):
    """Modules of this package that a file imports, in functions too, as paths like ``engine/atomic``."""
    package = os.path.relpath(path, ROOT)[:-3].split(os.sep)[:-1]
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(base + ([node.module] if node.module else []))
            names = [base] + [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.replace(".", "/")[len("d2_balanced/"):] for name in names if name.startswith("d2_balanced."))


@pytest.mark.parametrize("importer, never", [
    ("data", "modeling"),
    ("evaluation", "modeling"),
    ("engine", "modeling"),
    ("modeling", "engine"),
    ("modeling", "data"),
    ("modeling/backbone", "modeling/roi_heads"),
    ("modeling/sampling", "modeling/roi_heads"),
    ("modeling/proposal_generator", "modeling/roi_heads"),
    ("modeling/box_losses.py", "config"),
    ("modeling/matcher.py", "config"),
])  # fmt: skip
def test_imports_run_one_way(importer, never):
    files = [p for p in MODULES if os.path.relpath(p, os.path.join(ROOT, "d2_balanced")).startswith(importer)]
    assert files
    wrong = {os.path.basename(p) for p in files if any((i + "/").startswith(never + "/") for i in imports_of(p))}
    assert not wrong


def test_nothing_needs_what_the_pure_python_detectron2_lacks():
    text = "".join(read(path) for path in MODULES if not path.endswith(("compat.py", "doctor.py")))
    assert "model_zoo" not in re.sub(r"#.*|\"\"\".*?\"\"\"", "", text, flags=re.DOTALL)
    assert not re.search(r"from detectron2 import _C|detectron2\._C", re.sub(r"#.*", "", text))
