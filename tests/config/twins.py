"""The configs of the repository, and what their yaml and lazy twins have to have in common."""

import glob
import os
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import instantiate
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier, build_lr_scheduler, build_optimizer
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from torch import nn

from d2_balanced.config import check_config, load_lazy, load_yaml
from d2_balanced.data.mapper import build_mapper
from paths import ROOT

IMAGE_SIZE = (64, 96)


def config_stems():
    """Paths, relative to the checkout and without the ending, of all configs that are no fragments of others."""
    patterns = ("configs/**/*.yaml", "configs/**/*.py", "projects/**/configs/**/*.yaml", "projects/**/configs/**/*.py")
    files = [f for p in patterns for f in glob.glob(os.path.join(ROOT, p), recursive=True)]
    relative = sorted({os.path.splitext(os.path.relpath(f, ROOT))[0] for f in files})
    parts = {stem: stem.split(os.sep) for stem in relative}
    return [s for s in relative if not ({"base", "components"} & set(parts[s]) or parts[s][-1].startswith("_"))]


def load_both(stem):
    """The checked yaml config and the checked lazy config of a stem."""
    cfg = load_yaml(os.path.join(ROOT, stem + ".yaml"))
    check_config(cfg)
    return cfg, load_lazy(os.path.join(ROOT, stem + ".py"))


def are_one_model(one, other):
    """Whether two pairs of a yaml and a lazy config build the same models; they may differ in their schedules."""

    def settings(cfg, lazy):
        of_yaml = (cfg.MODEL.dump(), cfg.TEST.DETECTIONS_PER_IMAGE, cfg.INPUT.FORMAT, cfg.VIS_PERIOD)
        return of_yaml, repr(OmegaConf.to_container(lazy.model, resolve=True))

    return settings(*one) == settings(*other)


def build_both(cfg, lazy, device="cpu"):
    """Both models; on the device "meta" without any values, which takes no time."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = device
    with torch.device(device):
        return build_model(cfg), instantiate(lazy.model)


def plain(value, depth=0):
    """Numbers, strings and containers of them, also inside the helper objects of modules; others are left out."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.Tensor, nn.Module)) or callable(value) and not hasattr(value, "__dict__"):
        return type(value).__name__
    if isinstance(value, Mapping):
        return {str(k): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (Sequence, set)):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, type) or depth > 3:
        return getattr(value, "__name__", type(value).__name__)
    return {"class": type(value).__name__, **{k: plain(v, depth + 1) for k, v in vars(value).items()}}


def settings_of(model):
    """``{module: {attribute: plain value}}``: thresholds, fractions, strides, samplers, matchers ..."""
    found = {}
    for name, module in model.named_modules():
        attributes = {k: plain(v) for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        if "loss_weight" in attributes and isinstance(attributes["loss_weight"], dict):
            # A weight of 1 may be written or left out.
            attributes["loss_weight"] = {k: v for k, v in attributes["loss_weight"].items() if v != 1.0}
        found[name] = {"class": type(module).__name__, **attributes}
    return found


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def trained(model):
    """``{parameter: its number of elements, or 0 where it is frozen}``."""
    return {name: p.numel() * p.requires_grad for name, p in model.named_parameters()}


def optimizers(cfg, lazy, yaml_model, lazy_model):
    """The optimizers of both; the lazy one is built as the trainer does."""
    node = OmegaConf.create(OmegaConf.to_container(lazy, resolve=True), flags={"allow_objects": True}).optimizer
    node.params.model = lazy_model
    return build_optimizer(cfg, yaml_model), instantiate(node)


def groups_of(optimizer, model):
    """``{parameter: the settings of its group}``, without the choice of a loop over parameters or one kernel for all.

    detectron2 main asks for the kernel in yacs, and leaves the choice to torch in LazyConfig: the same step.
    """
    names = {p: name for name, p in model.named_parameters()}
    rename = lambda k: "initial_lr" if k == "lr" else k  # noqa: E731  (a scheduler copies lr)
    groups = [({rename(k): v for k, v in g.items() if k not in ("params", "foreach")}, g["params"]) for g in optimizer.param_groups]
    return {names[p]: settings for settings, params in groups for p in params}


def learning_rates(cfg, lazy):
    """The learning rate of both at 200 iterations between the first and the last, and around the steps."""
    points = {i * (cfg.SOLVER.MAX_ITER - 1) // 199 for i in range(200)}
    points |= {max(0, step + d) for step in (*cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) for d in (-1, 0, 1)}
    points = sorted(p for p in points if p < cfg.SOLVER.MAX_ITER)
    parameter = [nn.Parameter(torch.zeros(1))]
    yaml_schedule = build_lr_scheduler(cfg, torch.optim.SGD(parameter, lr=cfg.SOLVER.BASE_LR))
    lazy_schedule = LRMultiplier(
        torch.optim.SGD(parameter, lr=lazy.optimizer.lr), instantiate(lazy.lr_multiplier), lazy.train.max_iter
    )
    return [[rate_at(schedule, p) for p in points] for schedule in (yaml_schedule, lazy_schedule)]


def rate_at(schedule, iteration):
    schedule.last_epoch = iteration
    return schedule.get_lr()[0]


def mappers(cfg, lazy):
    """``((yaml, lazy) for training, (yaml, lazy) for testing)``: the data mappers' settings."""
    yaml_mappers = build_mapper(cfg, True), build_mapper(cfg, False)
    lazy_mappers = (instantiate(loader.mapper) for loader in (lazy.dataloader.train, lazy.dataloader.test))
    return [(plain(ours), plain(theirs)) for ours, theirs in zip(yaml_mappers, lazy_mappers)]


def run_settings(cfg, lazy):
    """Pairs (yaml, lazy) of all settings of a run that are neither the model's nor the mapper's."""
    train, loader, test = lazy.train, lazy.dataloader.train, lazy.dataloader.test
    proposal_files = [d.dataset.get("proposal_files") or [] for d in (loader, test)]
    return {
        "output": (cfg.OUTPUT_DIR, train.output_dir),
        "weights": (cfg.MODEL.WEIGHTS, train.init_checkpoint),
        "device": (cfg.MODEL.DEVICE, train.device),
        "seed": (cfg.SEED, train.seed),
        "iterations": (cfg.SOLVER.MAX_ITER, train.max_iter),
        "batch size": (cfg.SOLVER.IMS_PER_BATCH, loader.total_batch_size),
        "accumulate": (cfg.SOLVER.ACCUMULATE, train.accumulate),
        "amp": (cfg.SOLVER.AMP.ENABLED, train.amp.enabled),
        "layers": ({key.lower(): value for key, value in cfg.MODEL.LAYERS.items()}, dict(train.layers)),
        "checkpoint period": (cfg.SOLVER.CHECKPOINT_PERIOD, train.checkpointer.period),
        "kept checkpoints": (cfg.SOLVER.MAX_TO_KEEP, train.checkpointer.max_to_keep),
        "log period": (cfg.SOLVER.LOG_PERIOD, train.log_period),
        "evaluation period": (cfg.TEST.EVAL_PERIOD, train.eval_period),
        "gradient annealing": (
            {key.lower(): value for key, value in cfg.SOLVER.GRADIENT_ANNEALING.items()},
            {key: value for key, value in train.gradient_annealing.items() if key != "_target_"},
        ),
        "recording": (
            {key.lower(): value for key, value in cfg.ANALYSIS.items() if key != "RECORD"},
            {key: value for key, value in train.record_imbalance.items() if key != "enabled"},
        ),
        "recorded": (cfg.ANALYSIS.RECORD, train.record_imbalance.enabled),
        "images evaluated at once": (cfg.TEST.IMS_PER_BATCH, train.test_batch_size),
        "tracking": ({key.lower(): name for key, name in cfg.TRACKING.items()}, dict(train.tracking)),
        "best metric": (cfg.TEST.BEST_METRIC, train.best_metric),
        "patience": (cfg.TEST.PATIENCE, train.patience),
        "test-time augmentation": (
            {key.lower(): plain(value) for key, value in cfg.TEST.AUG.items()},
            plain(train.test_aug),
        ),
        "training sets": (list(cfg.DATASETS.TRAIN), as_list(loader.dataset.names)),
        "test sets": (list(cfg.DATASETS.TEST), as_list(test.dataset.names)),
        "training proposals": (list(cfg.DATASETS.PROPOSAL_FILES_TRAIN), list(proposal_files[0])),
        "test proposals": (list(cfg.DATASETS.PROPOSAL_FILES_TEST), list(proposal_files[1])),
        "empty images": (cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, loader.dataset.filter_empty),
        "workers": (cfg.DATALOADER.NUM_WORKERS, loader.num_workers),
        "test workers": (cfg.DATALOADER.NUM_WORKERS, test.num_workers),
        "grouping": (cfg.DATALOADER.ASPECT_RATIO_GROUPING, loader.aspect_ratio_grouping),
        "repeat threshold": (cfg.DATALOADER.REPEAT_THRESHOLD, loader.repeat_threshold),
        "detections": (cfg.TEST.DETECTIONS_PER_IMAGE, lazy.dataloader.evaluator.max_dets),
        "mistakes": (cfg.TEST.ERRORS, lazy.dataloader.evaluator.get("errors", True)),
        "evaluated set": (list(cfg.DATASETS.TEST), as_list(lazy.dataloader.evaluator.dataset_name)),
    }


def as_list(names):
    return [names] if isinstance(names, str) else list(names)


def inputs(cfg, num_images=2):
    """A batch as the data loader gives it: images with two objects each, masks and proposals where they are used."""
    generator = torch.Generator().manual_seed(0)
    height, width = IMAGE_SIZE
    batch = []
    for index in range(num_images):
        boxes = torch.tensor([[4.0, 6.0, 50.0, 40.0], [30.0 + index, 10.0, 90.0, 60.0]])
        instances = Instances(IMAGE_SIZE)
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.tensor([0, min(1, cfg.MODEL.ROI_HEADS.NUM_CLASSES - 1)])
        if cfg.MODEL.MASK_ON:
            polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.double().tolist()]
            instances.gt_masks = PolygonMasks(polygons)
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": height, "width": width})
        if cfg.MODEL.LOAD_PROPOSALS:
            batch[-1]["proposals"] = proposals(boxes, generator)
    return batch


def proposals(boxes, generator, num=40):
    height, width = IMAGE_SIZE
    corners = torch.rand(num, 4, generator=generator) * torch.tensor([width / 2, height / 2, width / 2, height / 2])
    corners[:, 2:] += corners[:, :2] + 1
    found = Instances(IMAGE_SIZE)
    found.proposal_boxes = Boxes(torch.cat([boxes + 2, corners]))
    found.objectness_logits = torch.rand(num + len(boxes), generator=generator)
    return found


def training_losses(model, batch, seed=0):
    model.train()
    torch.manual_seed(seed)
    with EventStorage():
        return model(batch)


def calm(model):
    """Damp the residual branches, whose frozen batch norm does not normalise yet: 101 layers of them explode."""
    for name, buffer in model.named_buffers():
        if name.endswith("conv3.norm.weight"):
            buffer.mul_(0.2)


def detections(model, batch):
    """The tensors of the first image's detections or proposals; of an untrained model, so all scores count."""
    for module in model.modules():
        if hasattr(module, "test_score_thresh"):
            module.test_score_thresh = -1.0
    model.eval()
    with torch.no_grad():
        (found,) = model(batch[:1])
    fields = (found["instances"] if "instances" in found else found["proposals"]).get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}
