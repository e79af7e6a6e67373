"""Makes a detector small enough for small images on a CPU (yaml: small_rcnn.yaml, small_retinanet.yaml, small_fcos.yaml)."""

from omegaconf import ListConfig

CHANNELS = 64


def shrink_rcnn(model):
    """Change a two-stage detector's node in place: 64 channels, small anchors, small minibatches, small heads."""
    model.backbone.out_channels = CHANNELS
    rpn = model.proposal_generator
    if rpn is not None:
        rpn.head.in_channels = CHANNELS
        rpn.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
        rpn.batch_size_per_image = 128
        rpn.pre_nms_topk = (500, 300)
        rpn.post_nms_topk = (300, 200)
    if "roi_heads" in model:
        _shrink_roi_heads(model.roi_heads)


def _shrink_roi_heads(heads):
    heads.batch_size_per_image = 128
    heads.box_pooler.sampling_ratio = 2
    for head in _each(heads.box_head):
        head.input_shape.channels = CHANNELS
        head.fc_dims = [256, 256]
    for predictor in _each(heads.box_predictor):
        predictor.input_shape.channels = 256
    if "mask_head" in heads:
        heads.mask_pooler.sampling_ratio = 2
        heads.mask_head.input_shape.channels = CHANNELS
        heads.mask_head.conv_dims = [CHANNELS] * 3


def _each(node):
    return node if isinstance(node, ListConfig) else [node]


def shrink_one_stage(model):
    """Change RetinaNet's or FCOS's node in place: 64 channels, small anchors, two convolutions a tower."""
    model.backbone.out_channels = CHANNELS
    for shape in model.head.input_shape:
        shape.channels = CHANNELS
    model.head.conv_dims = [CHANNELS] * 2
    if "anchor_generator" in model:
        model.backbone.top_block.in_channels = 512  # res5 of ResNet-18
        model.anchor_generator.sizes = [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [16, 32, 64, 128, 256]]
    model.test_topk_candidates = 300
