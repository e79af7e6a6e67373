"""``d2_balanced by-objects``"""

import argparse

from .numbers import count

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Detections, ground truth, and the groups of images."""
    parser = argparse.ArgumentParser(description="AP on images grouped by their number of objects.")
    parser.add_argument("--gt", required=True, help="COCO JSON with the ground truth")
    parser.add_argument("--results", required=True, help="COCO results JSON (coco_instances_results.json)")
    parser.add_argument("--starts", type=count, nargs="+", default=[1, 4, 8], help="least objects of each group")
    parser.add_argument("--task", choices=["bbox", "segm"], default="bbox")
    parser.add_argument("--max-dets", type=count, default=100)
    return parser
