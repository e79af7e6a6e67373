"""What ``import d2_balanced`` patches, and that it leaves everything else alone.

Every test runs in its own process, with small stand-ins for detectron2, NumPy and Pillow in front on the path, so
the outcome does not depend on the versions that happen to be installed.
"""

import os
import subprocess
import sys
import textwrap

import pytest
from paths import ROOT

PURE_06 = {"detectron2/__init__.py": "", "detectron2/utils/__init__.py": ""}
COMPILED_06 = {**PURE_06, "detectron2/_C.py": "marker = 'compiled'"}
MAIN_UNCOMPILED = {**PURE_06, "detectron2/utils/tracing.py": ""}
OLD_LIBRARIES = {  # names present, with values that show whether they were overwritten
    "numpy/__init__.py": "bool = int = float = object = str = 'old'",
    "PIL/__init__.py": "",
    "PIL/Image.py": "LINEAR = 'old'; BILINEAR = 2",
}
NEW_LIBRARIES = {"numpy/__init__.py": "bool = 'new'", "PIL/__init__.py": "", "PIL/Image.py": "BILINEAR = 2"}

COMPILED_MAIN = {**COMPILED_06, "detectron2/utils/tracing.py": ""}
EXPORT_06 = {
    "detectron2/export/__init__.py": "from .api import *\nfrom .flatten import TracingAdapter",
    "detectron2/export/api.py": "from caffe2.proto import caffe2_pb2\nexporter = 'theirs'",
    "detectron2/export/flatten.py": "TracingAdapter = 'adapter'",
}
CAFFE2_FILES = {"caffe2/__init__.py": "", "caffe2/python/__init__.py": "", "caffe2/proto/__init__.py": ""}
CAFFE2 = {**CAFFE2_FILES, "caffe2/proto/caffe2_pb2.py": "", "caffe2/python/caffe2_pybind11_state.py": ""}

STATE = """
import d2_balanced, sys, numpy
from PIL import Image
print([getattr(numpy, name, None) for name in ("bool", "int", "float", "object", "str")],
      getattr(Image, "LINEAR", None), "detectron2._C" in sys.modules, "torch" in sys.modules)
"""
NOTHING_SET = "['new', None, None, None, None] None False False"


def run(code, folder, *packages):
    """Run ``code`` in a new process that sees ``packages`` ({path: text}) before anything installed."""
    for package in packages:
        for path, text in package.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), ROOT])}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, cwd=folder,
                          capture_output=True, text=True, timeout=120)


def output(*arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_pure_06_gets_what_is_missing(tmp_path):
    state = output(STATE, tmp_path, PURE_06, NEW_LIBRARIES)
    assert state == "['new', <class 'int'>, <class 'float'>, <class 'object'>, <class 'str'>] 2 True False"


def test_pure_06_on_old_libraries_keeps_their_names(tmp_path):
    state = output(STATE, tmp_path, PURE_06, OLD_LIBRARIES)
    assert state == "['old', 'old', 'old', 'old', 'old'] old True False"


def test_compiled_06_gets_the_removed_names_and_keeps_its_operators(tmp_path):
    state = output(STATE, tmp_path, COMPILED_06, NEW_LIBRARIES)
    assert state == "['new', <class 'int'>, <class 'float'>, <class 'object'>, <class 'str'>] 2 False False"


@pytest.mark.parametrize("detectron2", [COMPILED_MAIN, MAIN_UNCOMPILED], ids=["compiled", "uncompiled"])
def test_main_is_left_alone(tmp_path, detectron2):
    assert output(STATE, tmp_path, detectron2, NEW_LIBRARIES) == NOTHING_SET


@pytest.mark.parametrize("detectron2", [PURE_06, COMPILED_06], ids=["pure", "compiled"])
@pytest.mark.parametrize("caffe2, expected", [
    (CAFFE2_FILES, "adapter none"),  # Python files only, as some versions of torch bring them
    (CAFFE2, "adapter theirs"),
], ids=["files", "caffe2"])
def test_export_is_imported_without_caffe2(tmp_path, detectron2, caffe2, expected):
    code = "import d2_balanced, detectron2.export as e; print(e.TracingAdapter, getattr(e, 'exporter', 'none'))"
    assert output(code, tmp_path, {**detectron2, **EXPORT_06}, caffe2) == expected


def test_export_of_this_detectron2_is_imported():
    from detectron2.export import TracingAdapter, scripting_with_instances

    assert callable(TracingAdapter) and callable(scripting_with_instances)


def test_compiled_operators_are_the_real_ones(tmp_path):
    code = "import d2_balanced; from detectron2 import _C; print(_C.marker, d2_balanced.compat.has_compiled_ops())"
    assert output(code, tmp_path, COMPILED_06) == "compiled True"


def test_detectron2_imported_first_changes_nothing(tmp_path):
    code = "import detectron2.utils, d2_balanced; from detectron2 import _C; print(_C.has_cuda())"
    assert output(code, tmp_path, PURE_06) == "False"


def test_second_call_keeps_the_stand_in(tmp_path):
    code = """
        import d2_balanced, detectron2._C as first
        d2_balanced.compat.prepare()
        import detectron2._C as second
        print(first is second, d2_balanced.compat.has_compiled_ops())
    """
    assert output(code, tmp_path, PURE_06) == "True False"


@pytest.mark.parametrize("operator", ["deform_conv_forward", "nms_rotated"])
def test_stand_in_operators_raise_a_clear_error(tmp_path, operator):
    result = run(f"import d2_balanced; from detectron2 import _C; f = _C.{operator}; f(1, x=2)", tmp_path, PURE_06)
    assert f"RuntimeError: detectron2._C.{operator} is a compiled operator" in result.stderr
    assert "official detectron2" in result.stderr


def test_stand_in_survives_introspection(tmp_path):
    code = "import d2_balanced, inspect, detectron2._C as _C; print(hasattr(_C, '__file__'), inspect.getmodule(run))"
    assert output("def run(): pass\n" + code, tmp_path, PURE_06).startswith("False <module '__main__'")


# Answers the question "where is detectron2?" with `spec`.
FIND = """
import importlib.util, importlib.machinery
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: spec if name == "detectron2" else found(name, *rest)
"""


def test_missing_detectron2_says_what_to_do(tmp_path):
    result = run("spec = None" + FIND + "import d2_balanced", tmp_path)
    assert "ImportError: d2_balanced needs detectron2" in result.stderr
    assert "make install" in result.stderr and sys.executable in result.stderr


def test_a_folder_called_detectron2_is_not_detectron2(tmp_path):
    (tmp_path / "detectron2").mkdir()
    code = FIND + f"""
spec = importlib.machinery.PathFinder.find_spec("detectron2", [{str(tmp_path)!r}])
assert spec is not None
import d2_balanced
"""
    assert "ImportError: d2_balanced needs detectron2" in run(code, tmp_path).stderr


def test_the_installed_detectron2_imports_and_reports_itself():
    code = "import d2_balanced, detectron2.data, detectron2.modeling, detectron2.utils.collect_env as c; " \
           "print(c.collect_env_info())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "PyTorch built with" in result.stdout
