"""Small ROI heads, features, proposals and targets for the tests of this folder."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_roi_heads
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

import d2_balanced.modeling  # noqa: F401  (registers the components)
from d2_balanced.config import get_balanced_cfg
from d2_balanced.modeling.stage_view import StageView

IMAGE_SIZE = (96, 128)
# Changes for tiny_cfg.
AGNOSTIC = {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
CASCADE = {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}}
RECURSIVE = {"MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages"}}
BRANCHES = {"MODEL__BALANCED__BRANCHES": [{"POSITIVE_FRACTION": 0.1}, {"POSITIVE_FRACTION": 0.5}]}
IOU_BRANCH = {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch"}}
AXES = {
    "one stage": {},
    "agnostic": AGNOSTIC,
    "cascade": {**CASCADE, **AGNOSTIC},
    "loops": {**RECURSIVE, **AGNOSTIC},
    "branches": BRANCHES,
}
FLOW = {
    "MODEL__MASK_ON": True,
    "MODEL__ROI_MASK_HEAD__NAME": "FlowMaskHead",
    "MODEL__BALANCED__MASKS": {"NAME": "InterleavedMasks"},
}
SHAPES = {"p2": ShapeSpec(channels=8, stride=4), "p3": ShapeSpec(channels=8, stride=8)}


def tiny_cfg(name="BalancedROIHeads", **changes):
    """A config of small heads; ``changes`` are keys with ``__`` for the dot."""
    cfg = get_balanced_cfg()
    cfg.merge_from_list(
        ["MODEL.ROI_HEADS.NAME", name, "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3"]]
        + ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32, "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"]
        + ["MODEL.ROI_BOX_HEAD.NUM_FC", 1, "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 3]
        + ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01]
        + ["MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead", "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 4]
        + ["MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1]
    )
    for key, value in changes.items():
        node, parts = cfg, key.split("__")
        for part in parts[:-1]:
            node = node[part]
        node[parts[-1]] = value if not isinstance(value, dict) else type(cfg)(value)
    return cfg


def build(cfg, seed=0, scale=20.0):
    """ROI heads of this config; predictor weights are scaled up so that refined boxes really move."""
    torch.manual_seed(seed)
    heads = build_roi_heads(cfg, SHAPES)
    with torch.no_grad():
        for name, parameter in heads.named_parameters():
            if "box_predictor" in name and "weight" in name:
                parameter.mul_(scale)
    return heads


def features(num_images, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(num_images, 8, IMAGE_SIZE[0] // s.stride, IMAGE_SIZE[1] // s.stride, generator=generator)
        for name, s in SHAPES.items()
    }


def random_boxes(num, generator, low=8.0, high=60.0):
    size = low + (high - low) * torch.rand(num, 2, generator=generator)
    limit = torch.tensor([IMAGE_SIZE[1], IMAGE_SIZE[0]], dtype=torch.float32)
    corner = torch.rand(num, 2, generator=generator) * (limit - size)
    return torch.cat([corner, corner + size], dim=1)


def targets(num_objects, seed=2, masks=False):
    """One ``Instances`` an image with the given numbers of objects."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for num in num_objects:
        boxes = random_boxes(num, generator)
        image = Instances(IMAGE_SIZE, gt_boxes=Boxes(boxes), gt_classes=torch.arange(num) % 3)
        if masks:
            bitmaps = torch.zeros(num, *IMAGE_SIZE, dtype=torch.bool)
            for bitmap, (x0, y0, x1, y1) in zip(bitmaps, boxes.long().tolist()):
                bitmap[y0:y1, x0:x1] = True
            image.gt_masks = BitMasks(bitmaps)
        images.append(image)
    return images


def proposals(images, num=60, seed=3):
    """Random proposals for these targets; half of them are jittered objects, so that some are positive."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for image in images:
        boxes = random_boxes(num, generator)
        if len(image):
            near = image.gt_boxes.tensor[torch.arange(num // 2) % len(image)]
            boxes[: num // 2] = near + 4 * torch.randn(num // 2, 4, generator=generator)
        boxes = Boxes(boxes)
        boxes.clip(IMAGE_SIZE)
        p = Instances(IMAGE_SIZE, proposal_boxes=boxes, objectness_logits=torch.zeros(num))
        result.append(p[boxes.nonempty()])
    return result


def train_step(heads, feats, props, targs, seed=4):
    """Losses, gradients of all parameters and feature maps, sampled proposals, logged scalars, next random number."""
    heads.train()
    heads.zero_grad()
    feats = {k: v.clone().requires_grad_() for k, v in feats.items()}
    torch.manual_seed(seed)
    with EventStorage() as storage:
        samples, losses = heads(None, feats, props, targs)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in heads.named_parameters() if p.grad is not None}
    gradients.update({name: v.grad for name, v in feats.items()})
    logged = {name: value for name, (value, _) in storage.latest().items()}
    return losses, gradients, samples, logged, torch.rand(1)


class Watcher:
    """An observer of ROI heads, which keeps the ``StageView`` of every stage."""

    def __init__(self):
        self.views = []

    def observe(self, view):
        self.views.append(view)


def watched_step(heads, *args, **kwargs):
    """What :func:`train_step` returns, and the ``StageView`` of every stage."""
    watcher = Watcher()
    heads.observers.append(watcher)
    result = train_step(heads, *args, **kwargs)
    heads.observers.remove(watcher)
    return result, watcher.views


def view_of(labeled, samples=()):
    """What an adaptive component of a branch is shown of these labeled proposals and samples."""
    return StageView(stage=0, targets=[], labeled=[labeled], samples=[samples], pooled=[None], predictions=[None])


@torch.no_grad()
def detect(heads, feats, props):
    heads.eval()
    return heads(None, feats, props)[0]
