"""A plot of the negatives that a sampler draws, and of hard negatives: shares by IoU (Libra R-CNN, figure 3).

The proposals are those that a detector would train on, labeled by the config's own matcher and drawn with its quotas.
Hard negatives are those of an image that the detector gives the highest foreground probabilities, as many as are drawn
at random (the paper does not say what it counts as hard):

    python -m d2_balanced.analysis.sampling_distribution --config-file CONFIG --weights model_final.pth \\
        --train-json train.json --train-images train --output sampling_distribution.png

Without ``--config-file``, from random boxes around random objects (nothing is read).
"""

import os

import torch
from detectron2.structures import Boxes, Instances
from tabulate import tabulate

from ..arguments.sampling import argument_parser
from ..engine.experiment import OwnData
from ..engine.open import open_checkpoint, open_experiment
from ..modeling.matcher import FixedMatcher
from ..modeling.roi_heads.labeling import append_gt, label_proposals
from ..modeling.sampling import IoUBalancedSampler, RandomSampler
from ..utils.command import command
from ..utils.errors import ConfigError, usage
from ..utils.output_folder import require_writable

__all__ = ["main", "negative_shares", "plot_shares", "random_proposals", "training_proposals"]

_CANDIDATES, _HARD = "all negatives", "hard negatives"
_BIN_WIDTH = 0.05


def negative_shares(labeled, samplers, num_samples, positive_fraction, bg_label, edges):
    """For every sampler, and for all negatives together: the share of the negatives in each IoU bin.

    Args:
        labeled: list of labeled proposals (``Instances`` with ``gt_classes``, ``matched_ious``, ``matched_idxs``).
            Where all have ``foreground_scores``, there are shares of hard negatives, too.
        samplers: ``{name: sampler}``; each draws ``num_samples`` with at most ``positive_fraction`` positives.
        bg_label: label of the background.
        edges: (B + 1,) increasing tensor of IoUs. The last bin also counts IoUs at or above its end.

    Returns ``{name: (B,) tensor}``; each sums up to 1, or is 0 where there are no negatives.
    """
    scored = [_HARD] * (bool(labeled) and all(image.has("foreground_scores") for image in labeled))
    ious = {name: [] for name in (_CANDIDATES, *samplers, *scored)}
    for image in labeled:
        ious[_CANDIDATES].append(image.matched_ious[image.gt_classes == bg_label])
        if scored:
            ious[_HARD].append(_hard_negatives(image, num_samples, positive_fraction, bg_label))
        fields = (image.gt_classes, image.matched_ious, image.matched_idxs)
        for name, sampler in samplers.items():
            negative = sampler(*fields, num_samples, positive_fraction, bg_label)[1]
            ious[name].append(image.matched_ious[negative])
    return {name: _shares(torch.cat(values), edges) for name, values in ious.items()}


def _hard_negatives(image, num_samples, positive_fraction, bg_label):
    """IoUs of as many negatives as random sampling draws, of the highest foreground probabilities."""
    fields = (image.gt_classes, image.matched_ious, image.matched_idxs)
    number = len(RandomSampler()(*fields, num_samples, positive_fraction, bg_label)[1])
    negatives = image[image.gt_classes == bg_label]
    return negatives.matched_ious[negatives.foreground_scores.topk(number).indices]


def _shares(ious, edges):
    counts = torch.bincount(torch.bucketize(ious, edges[1:-1], right=True), minlength=len(edges) - 1)
    return counts / counts.sum().clamp(min=1)


def training_proposals(experiment, weights, num_images):
    """Labeled proposals, as in training, of the first ``num_images`` images that the experiment trains on.

    The model is in evaluation mode (its statistics stay), but gives as many proposals as in training.

    Returns the list of labeled proposals and the model. Raises ``ConfigError`` for a model without RPN or ROI heads.
    """
    model = open_checkpoint(experiment, weights, check=_require_rpn_and_heads).eval()
    rpn, heads = model.proposal_generator, model.roi_heads
    for limits in (rpn.pre_nms_topk, rpn.post_nms_topk):
        limits[False] = limits[True]
    labeled = []
    for batch in experiment.build_loader():
        batch = batch[: num_images - len(labeled)]
        labeled += _label(model, rpn, heads, batch)
        if len(labeled) == num_images:
            return labeled, model


def _require_rpn_and_heads(model):
    if getattr(model, "proposal_generator", None) is None or getattr(model, "roi_heads", None) is None:
        raise ConfigError(f"sampling_distribution: {type(model).__name__} of this config has no RPN and ROI heads.")


@torch.no_grad()
def _label(model, rpn, heads, batch):
    images = model.preprocess_image(batch)
    targets = [item["instances"].to(model.device) for item in batch]
    features = model.backbone(images.tensor)
    proposals, _ = rpn(images, features, None)
    labeled = label_proposals(append_gt(proposals, targets), targets, heads.proposal_matcher, heads.num_classes)
    if hasattr(heads, "branches"):
        branch, maps = heads.branches[heads.main_branch], [features[name] for name in heads.box_in_features]
        predictions = branch.predict(heads.box_pooler(maps, [image.proposal_boxes for image in labeled]), 0)
        for image, scores in zip(labeled, branch.predictor(0).predict_probs(predictions, labeled)):
            image.foreground_scores = 1 - scores[:, -1]
    return labeled


def random_proposals(num_images, num_proposals=2000, num_objects=10, size=800, seed=0):
    """Labeled proposals around random objects: half jittered objects, half anywhere; one class, background is 1."""
    generator = torch.Generator().manual_seed(seed)
    labeled = []
    for _ in range(num_images):
        targets = Instances((size, size), gt_boxes=Boxes(_boxes(num_objects, size, generator)))
        targets.gt_classes = torch.zeros(num_objects, dtype=torch.long)
        near = targets.gt_boxes.tensor[torch.randint(num_objects, (num_proposals // 2,), generator=generator)]
        side = (near[:, 2:] - near[:, :2]).repeat(1, 2)
        near = near + 0.3 * side * torch.randn(near.shape, generator=generator)
        near = torch.cat([torch.minimum(near[:, :2], near[:, 2:]), torch.maximum(near[:, :2], near[:, 2:])], dim=1)
        boxes = Boxes(torch.cat([near, _boxes(num_proposals - len(near), size, generator)]))
        boxes.clip((size, size))
        proposals = Instances((size, size), proposal_boxes=boxes, objectness_logits=torch.zeros(len(boxes)))
        labeled += label_proposals(append_gt([proposals], [targets]), [targets], FixedMatcher([0.5], [0, 1]), 1)
    return labeled


def _boxes(num, size, generator):
    corner = torch.rand(num, 2, generator=generator) * 0.8 * size
    extent = size * (0.03 + 0.25 * torch.rand(num, 2, generator=generator))
    return torch.cat([corner, (corner + extent).clamp(max=size)], dim=1)


def plot_shares(shares, edges, title, path):
    """Draw the shares (``negative_shares``) as grouped bars into a PNG; makes its folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = _BIN_WIDTH / (len(shares) + 1)
    for number, (name, values) in enumerate(shares.items()):
        left = edges[:-1] + (number + 1) * width
        axes.bar(left.tolist(), (100 * values).tolist(), width, label=name)
    axes.set(title=title, xlabel="highest IoU with an object", ylabel="share of the negatives, %")
    axes.set_xticks(edges.tolist())
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    figure.savefig(path, dpi=100)


@command("python -m d2_balanced.analysis.sampling_distribution")
def main(argv=None):
    """The command at the top of this module; prints the shares and returns them."""
    args = argument_parser().parse_args(argv)
    with usage("--num-bins", ValueError):
        samplers = {
            "random": RandomSampler(),
            f"IoU-balanced, {args.num_bins} bins": IoUBalancedSampler(args.num_bins),
            f"as released, {args.num_bins} bins": IoUBalancedSampler(args.num_bins, upper="max_overlap"),
        }
    require_writable(os.path.dirname(args.output) or ".")
    labeled, quotas, source = _proposals(args)
    edges = torch.arange(11) * _BIN_WIDTH
    torch.manual_seed(args.seed)
    shares = negative_shares(labeled, samplers, *quotas, edges)
    plot_shares(shares, edges, f"Negatives of {len(labeled)} images, {source}", args.output)
    rows = [[f"{low:.2f} - {low + _BIN_WIDTH:.2f}"] + [f"{100 * s[k]:.1f}" for s in shares.values()]
            for k, low in enumerate(edges[:-1].tolist())]
    rows.append([f"above {_BIN_WIDTH}", *(f"{100 * s[1:].sum():.1f}" for s in shares.values())])
    print(tabulate(rows, ["IoU", *(f"{name}, %" for name in shares)], tablefmt="github", disable_numparse=True))
    print(f"Plot: {args.output}")
    return shares


def _proposals(args):
    """Labeled proposals, quotas ``(samples an image, positive fraction, background label)``, and the plot's title."""
    if not args.config_file:
        return random_proposals(args.num, seed=args.seed), (512, 0.25, 1), "random proposals"
    own_data = OwnData(train_json=args.train_json, train_images=args.train_images)
    experiment = open_experiment(args.config_file, args.overrides, own_data)
    experiment.make_recordable()
    experiment.set_run(seed=args.seed)
    torch.manual_seed(args.seed)
    labeled, model = training_proposals(experiment, args.weights or "", args.num)
    heads = model.roi_heads
    return labeled, (heads.batch_size_per_image, heads.positive_fraction, heads.num_classes), "proposals of the RPN"


if __name__ == "__main__":
    main()
