"""detectron2's own tests of ROI heads, RPN and box predictor, with this package's classes in the place of theirs.

    python tools/detectron2_tests.py PATH/TO/detectron2 [pytest's arguments]

The path is a source tree of the version that is installed: its tests are taken from there, detectron2 itself is not.
Every component is at its default, where this package's classes promise to be detectron2's. One test fails: it compiles
the ROI heads with torch.jit.script, which torch has deprecated and which does not take their components. Tests of
rotated boxes need detectron2's compiled operators, those of PointRend opencv.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import d2_balanced  # noqa: F401, E402  (first: it makes detectron2 importable)
import detectron2.config  # noqa: E402
import pytest  # noqa: E402
from d2_balanced.config import get_balanced_cfg  # noqa: E402
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers  # noqa: E402
from d2_balanced.modeling.proposal_generator import BalancedRPN  # noqa: E402
from d2_balanced.modeling.roi_heads import BalancedROIHeads  # noqa: E402
from detectron2.modeling import proposal_generator, roi_heads  # noqa: E402

FILES = ("test_roi_heads.py", "test_rpn.py", "test_fast_rcnn.py")


def put_in_place():
    """Let the names that the tests import, and the one that they look up in a registry, be this package's."""
    detectron2.config.get_cfg = get_balanced_cfg
    roi_heads.StandardROIHeads = BalancedROIHeads
    roi_heads.fast_rcnn.FastRCNNOutputLayers = BalancedFastRCNNOutputLayers
    proposal_generator.RPN = BalancedRPN
    proposal_generator.build.PROPOSAL_GENERATOR_REGISTRY._obj_map["RPN"] = BalancedRPN


def main(arguments):
    folder = os.path.join(arguments[0], "tests", "modeling") if arguments else ""
    missing = [name for name in FILES if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        sys.exit(f"{__doc__}\nNot there: {', '.join(os.path.join(folder, name) for name in missing)}")
    put_in_place()
    files = [os.path.join(folder, name) for name in FILES]
    return pytest.main([*files, "-p", "no:cacheprovider", "--rootdir", arguments[0], *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
