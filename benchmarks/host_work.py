"""Operators and host-device syncs of one training forward, losses included; and the CPU time of what is not a layer.

    python benchmarks/host_work.py count --images 1 2 4 16
    python benchmarks/host_work.py time --images 16 --size 64 --rounds 60

``count`` is deterministic. A *real* operator is one that is no view. A *sync* makes a GPU's host wait for the device:
reading a value, and operators whose output size depends on values, such as ``nonzero`` or indexing by a bool tensor.
Those inside of NMS are counted apart. Counted on the CPU, where NMS itself is one operator; on a GPU every call of it
waits at least once more.

``time`` compares ``BalancedROIHeads`` at neutral settings with plain detectron2: CPU time of the RPN and the ROI heads
without their layers and the pooling, which leaves labelling, sampling, the selection of proposals, losses and logs.
"""

import traceback
import warnings
from collections import Counter

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.utils.events import EventStorage
from interleave import benchmark_parser, environment, parse, report, time_interleaved
from tabulate import tabulate
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from train_step import images, plain_detectron2, random_model

from d2_balanced.config import load_yaml

FASTER, CASCADE = "configs/quick/faster_rcnn_R_18_FPN.yaml", "configs/quick/cascade_rcnn_R_18_FPN.yaml"
METHODS = {
    "neutral": FASTER,
    "Libra": "projects/LibraRCNN/configs/libra_quick.yaml",
    "Dynamic": "projects/DynamicRCNN/configs/dynamic_quick.yaml",
    "RGA + PRM": "projects/RGA_PRM/configs/rga_prm_quick.yaml",
    "IoU-Uniform": "projects/IoUUniformRCNN/configs/iou_uniform_quick.yaml",
    "OHEM": "projects/Peers/configs/quick/ohem.yaml",
    "PISA": "projects/Peers/configs/quick/pisa.yaml",
    "SamplingFree": "projects/Peers/configs/quick/sampling_free.yaml",
    "cascade": CASCADE,
    "R3, 3 loops": "projects/R3CNN/configs/r3_quick.yaml",
    "IoU-Uniform, cascade": "projects/IoUUniformRCNN/configs/iou_uniform_quick_cascade.yaml",
    "RGA + PRM, cascade": "projects/RGA_PRM/configs/rga_prm_quick_cascade.yaml",
}
PLAIN = {"detectron2": FASTER, "detectron2, cascade": CASCADE}

SYNCS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "bincount",
    "equal",
    "repeat_interleave.Tensor",
}
INDEXING = {"index.Tensor", "index_put.default", "index_put_.default", "_index_put_impl_.default"}
TRANSFERS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}  # not seen as operators on the CPU


class HostWork(TorchDispatchMode):
    """Counts what a computation asks of the host: ``operators``, ``real``, ``syncs``, ``nms_syncs``, each a number.

    ``where`` counts the syncs by the function that they happen in. Use it with :func:`count`.
    """

    def __init__(self):
        super().__init__()
        self.operators = self.real = self.syncs = self.nms_syncs = 0
        self.where = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operators += 1
        self.real += not func.is_view
        if _is_sync(func, args):
            self.sync(func.name())
        return func(*args, **(kwargs or {}))

    def sync(self, name):
        frames = [f for f in traceback.extract_stack() if "torch/" not in f.filename and f.filename != __file__]
        in_nms = any("nms" in f.name for f in frames)
        self.nms_syncs += in_nms
        self.syncs += not in_nms
        self.where[name, frames[-1].name] += 1


class _Transfers(TorchFunctionMode):
    """Tells ``work`` of values that are read by methods which are no operators."""

    def __init__(self, work):
        self.work = work

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in TRANSFERS:
            self.work.sync(func.__name__)
        return func(*args, **(kwargs or {}))


def _is_sync(func, args):
    name = func.name().split("::")[-1]
    if f"{name.split('.')[0]}.{func._overloadname}" in INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return name in SYNCS or name.split(".")[0] in SYNCS


def count(function):
    """The :class:`HostWork` of a call."""
    work = HostWork()
    with _Transfers(work), work:
        function()
    return work


def cuda_warnings(function):
    """How many synchronising operations torch itself warns of in a call, on CUDA; not all of them, as it says."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def forward_of(model, batch):
    """A function that takes the training forward, with its losses."""
    model.train()

    def forward():
        torch.manual_seed(1)
        with EventStorage():
            return model(batch)

    return forward


def config_of(config_file, args, plain=False):
    cfg = load_yaml(config_file, args.opts)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = args.device, ""
    return plain_detectron2(cfg) if plain else cfg


def print_counts(args):
    rows = []
    for name in args.only or [*PLAIN, *METHODS]:
        config_file = {**PLAIN, **METHODS}[name]
        cfg = config_of(config_file, args, plain=name in PLAIN)
        for num in args.images:
            forward = forward_of(random_model(cfg), images(cfg, num, args.size, args.objects))
            forward()  # what is made once and kept
            work = count(forward)
            told = [cuda_warnings(forward)] if args.device == "cuda" else []
            rows.append([name, num, work.operators, work.real, work.syncs, work.nms_syncs, *told])
            if args.where:
                print("\n".join(f"{number:4} {place}" for place, number in work.where.most_common()))
    headers = ["model", "images", "operators", "real", "syncs", "in NMS", "torch's own count"]
    print(tabulate(rows, headers, tablefmt="github"))


class WithoutLayers:
    """A clock that stands still in the layers and poolers of the RPN and ROI heads of these models."""

    def __init__(self, models, clock):
        self.clock, self.in_layers = clock, 0.0
        for model in models:
            heads, rpn = model.roi_heads, model.proposal_generator
            for module in (rpn.rpn_head, heads.box_pooler, heads.box_head, heads.box_predictor):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def __call__(self):
        return self.clock() - self.in_layers

    def _enter(self, *_):
        self.in_layers -= self.clock()

    def _leave(self, *_):
        self.in_layers += self.clock()


def heads_of(model, batch):
    """A function that takes the forward of RPN and ROI heads, on features that are computed once."""
    model.train()
    targets = [image["instances"] for image in batch]
    with torch.no_grad():
        inputs = model.preprocess_image(batch)
        features = model.backbone(inputs.tensor)

    def forward():
        torch.manual_seed(1)
        with EventStorage():
            proposals, _ = model.proposal_generator(inputs, features, targets)
            model.roi_heads(inputs, features, proposals, targets)

    return forward


def print_times(args):
    for num in args.images:
        models = {}
        for name, plain in (("detectron2", True), ("d2_balanced", False)):
            cfg = config_of(FASTER, args, plain)
            models[name] = random_model(cfg)
        batch = images(cfg, num, args.size, args.objects)
        clock = WithoutLayers(models.values(), args.clock)
        variants = {name: heads_of(model, batch) for name, model in models.items()}
        print(f"\n{num} image(s) of {args.size} px\n")
        print(report(time_interleaved(variants, args.rounds, args.device, clock=clock)))


def main():
    parser = benchmark_parser(__doc__, parts=("count", "time"), rounds=60)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--size", type=int, default=256, help="side of the square images, in pixels")
    parser.add_argument("--objects", type=int, default=10, help="objects an image")
    parser.add_argument("--only", nargs="+", choices=[*PLAIN, *METHODS], help="count these models")
    parser.add_argument("--where", action="store_true", help="list where the syncs are")
    parser.add_argument("--opts", nargs="*", default=[], help="overrides of config keys: KEY VALUE ...")
    args = parse(parser)
    print(f"images of {args.size} px; {environment(args.device)}\n")
    print_counts(args) if args.part == "count" else print_times(args)


if __name__ == "__main__":
    main()
