"""An experiment from a yacs config (``.yaml``)."""

from __future__ import annotations

import logging
from typing import Any, Dict

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.modeling import ProposalNetwork, RetinaNet, build_model
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.solver import build_lr_scheduler, build_optimizer

from ..config import ConfigError, check_config, describe_changes, get_balanced_cfg, merge_overrides
from ..config.detectron2_names import SECTIONS, registered
from ..config.imports import import_modules
from ..config.yacs import flatten, merge_file
from ..data.loader import ExactTrainLoader, build_train_loader
from ..data.mapper import build_mapper
from ..evaluation import build_evaluator
from ..evaluation.coco import INFERENCE
from ..modeling.roi_heads import BalancedROIHeads
from ..modeling.roi_heads.stages import CascadeStages, SingleStage
from ..modeling.spec import call_arguments
from ..utils.constructing import constructing
from .experiment import Experiment, OwnData, RunSettings
from .gradient_annealing import GradientAnnealing, annealing_hooks
from .schedule import Schedule

__all__ = ["YacsExperiment", "annealing_settings", "build_yacs_loader"]

logger = logging.getLogger(__name__)

_ANNEALING = "SOLVER.GRADIENT_ANNEALING"
_ARCHITECTURE, _ROI_HEADS = "MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME"

# detectron2's ROI heads, and the stages with which BalancedROIHeads train as they do.
_STAGES = {StandardROIHeads: SingleStage, CascadeROIHeads: CascadeStages}


class YacsExperiment(Experiment):
    """Wraps a complete config node, which it may change until the run starts.

    Raises ``ConfigError`` for wrong keys, names and values, and for settings that this trainer cannot honour.
    """

    system = "yaml"
    keys = {
        "lr": "SOLVER.BASE_LR", "seed": "SEED", "output_dir": "OUTPUT_DIR", "device": "MODEL.DEVICE",
        "max_iter": "SOLVER.MAX_ITER", "batch_size": "SOLVER.IMS_PER_BATCH", "patience": "TEST.PATIENCE",
        "best_metric": "TEST.BEST_METRIC", "eval_period": "TEST.EVAL_PERIOD",
    }  # fmt: skip
    # detectron2's error for a key that it does not know cannot say this, where none of our code runs.
    saved_config_header = (
        "# Has keys of d2_balanced: a detectron2 script calls d2_balanced.add_balanced_config(cfg) before merging\n"
        "# this file (docs/LIBRARY.md).\n"
    )

    def __init__(self, cfg: CfgNode):
        check_config(cfg)
        annealing_hooks(annealing_settings(cfg), _ANNEALING)
        super().__init__(cfg)

    @staticmethod
    def _batch_size(cfg):
        return cfg.SOLVER.IMS_PER_BATCH

    @staticmethod
    def _settings_of(cfg):
        return cfg

    @staticmethod
    def _add(cfg, path):
        merge_file(cfg, path, get_balanced_cfg())
        import_modules(cfg.IMPORTS)

    @staticmethod
    def _override(cfg, overrides):
        merge_overrides(cfg, overrides, get_balanced_cfg())
        import_modules(cfg.IMPORTS)

    @staticmethod
    def words(settings):
        return [word for pair in settings.items() for word in pair]

    def value_of(self, key):
        return flatten(self.cfg).get(key)

    @property
    def settings(self):
        cfg = self.cfg
        return RunSettings(
            output_dir=cfg.OUTPUT_DIR,
            weights=cfg.MODEL.WEIGHTS,
            device=cfg.MODEL.DEVICE,
            seed=cfg.SEED,
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            accumulate=cfg.SOLVER.ACCUMULATE,
            amp=cfg.SOLVER.AMP.ENABLED,
            layers={key.lower(): value for key, value in cfg.MODEL.LAYERS.items()},
            log_period=cfg.SOLVER.LOG_PERIOD,
            max_to_keep=cfg.SOLVER.MAX_TO_KEEP or None,
            test_batch_size=cfg.TEST.IMS_PER_BATCH,
            best_metric=cfg.TEST.BEST_METRIC,
            patience=cfg.TEST.PATIENCE,
            test_aug={key.lower(): cfg.TEST.AUG[key] for key in cfg.TEST.AUG if key != "ENABLED"},
            augmented_test=cfg.TEST.AUG.ENABLED,
            tracking={key.lower(): name for key, name in cfg.TRACKING.items()},
            recording={key.lower(): cfg.ANALYSIS[key] for key in cfg.ANALYSIS if key != "RECORD"}
            if cfg.ANALYSIS.RECORD
            else {},
        )

    @property
    def schedule(self):
        solver = self.cfg.SOLVER
        return Schedule(
            lr=solver.BASE_LR,
            max_iter=solver.MAX_ITER,
            steps=tuple(solver.STEPS),
            warmup_iters=solver.WARMUP_ITERS,
            eval_period=self.cfg.TEST.EVAL_PERIOD,
            checkpoint_period=solver.CHECKPOINT_PERIOD,
        )

    def set_schedule(self, schedule):
        solver = self.cfg.SOLVER
        solver.BASE_LR, solver.MAX_ITER, solver.STEPS = schedule.lr, schedule.max_iter, schedule.steps
        solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD = schedule.warmup_iters, schedule.checkpoint_period
        self.cfg.TEST.EVAL_PERIOD = schedule.eval_period

    def set_run(self, *, seed=None, device=None, output_dir=None, weights=None):
        cfg = self.cfg
        cfg.SEED = cfg.SEED if seed is None else seed
        cfg.MODEL.DEVICE = cfg.MODEL.DEVICE if device is None else device
        cfg.OUTPUT_DIR = cfg.OUTPUT_DIR if output_dir is None else output_dir
        cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS if weights is None else weights

    @property
    def own_data(self):
        return OwnData(*(self.cfg.DATASETS[name.upper()] for name in OwnData._fields))

    def set_own_data(self, own_data):
        for name, path in own_data._asdict().items():
            if path:
                self.cfg.DATASETS[name.upper()] = path

    def set_datasets(self, train, test):
        if train is not None:
            self.cfg.DATASETS.TRAIN = (train,)
        self.cfg.DATASETS.TEST = () if test is None else (test,)

    @property
    def train_datasets(self):
        return tuple(self.cfg.DATASETS.TRAIN)

    @property
    def test_datasets(self):
        return tuple(self.cfg.DATASETS.TEST)

    @property
    def proposal_files(self):
        data = self.cfg.DATASETS
        pairs = (data.TRAIN, data.PROPOSAL_FILES_TRAIN), (data.TEST, data.PROPOSAL_FILES_TEST)
        return pairs if self.cfg.MODEL.LOAD_PROPOSALS else ()

    @property
    def num_classes(self):
        architecture = registered(_ARCHITECTURE, self.cfg.MODEL.META_ARCHITECTURE)
        if _derives(architecture, ProposalNetwork):
            return None
        one_stage = _derives(architecture, (RetinaNet, FCOS))
        return self.cfg.MODEL["RETINANET" if one_stage else "ROI_HEADS"].NUM_CLASSES

    @num_classes.setter
    def num_classes(self, number):
        self.cfg.MODEL.ROI_HEADS.NUM_CLASSES = self.cfg.MODEL.RETINANET.NUM_CLASSES = number

    @property
    def mask_format(self):
        return self.cfg.INPUT.MASK_FORMAT if self.cfg.MODEL.MASK_ON else None

    @property
    def strict_data(self):
        return self.cfg.DATASETS.STRICT

    def build_mapper(self, is_train):
        return _mapper(self.cfg, is_train)

    def make_recordable(self):
        heads = registered(_ROI_HEADS, self.cfg.MODEL.ROI_HEADS.NAME)
        if heads in _STAGES:
            self.cfg.MODEL.BALANCED.STAGES.NAME = _STAGES[heads].__name__
            self.cfg.MODEL.ROI_HEADS.NAME = BalancedROIHeads.__name__

    def record_in_training(self):
        self.make_recordable()
        self.cfg.ANALYSIS.RECORD = True

    def require_plain_sgd(self):
        pass  # detectron2's build_optimizer makes nothing else

    def build_loader(self):
        return build_yacs_loader(self.cfg)

    def _build_model(self):
        torch.backends.cudnn.benchmark = self.cfg.CUDNN_BENCHMARK
        with constructing("MODEL", flatten(self.cfg.MODEL, "MODEL."), SECTIONS):
            return build_model(self.cfg)

    def build_optimizer(self, model):
        with constructing("SOLVER", flatten(self.cfg.SOLVER, "SOLVER.")):
            return build_optimizer(self.cfg, model)

    def build_scheduler(self, optimizer):
        reads_steps = self.cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
        for doubt in self.schedule.doubts() if reads_steps else self.schedule._replace(steps=()).doubts():
            logger.warning("%s", doubt)
        with constructing("SOLVER", flatten(self.cfg.SOLVER, "SOLVER.")):
            return build_lr_scheduler(self.cfg, optimizer)

    def build_method_hooks(self, model):
        return annealing_hooks(annealing_settings(self.cfg), _ANNEALING, model)

    def build_test(self, name, subfolder=INFERENCE):
        test = self.cfg.TEST
        # Where all are kept, COCO's own limit counts, as in detectron2.
        limit = {} if test.DETECTIONS_PER_IMAGE < 0 else {"max_dets": test.DETECTIONS_PER_IMAGE}
        evaluator = build_evaluator(name, self.cfg.OUTPUT_DIR, **limit, subfolder=subfolder, errors=test.ERRORS)
        return build_detection_test_loader(self.cfg, name, mapper=self.build_mapper(False)), evaluator

    def describe(self):
        return describe_changes(self.cfg)

    def config_text(self):
        return self.cfg.dump()


def build_yacs_loader(cfg: CfgNode) -> ExactTrainLoader:
    """The training loader of ``cfg``, whose batches are a function of ``cfg.SEED`` (at least 0) and their number."""
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("There is nothing to train on: give --train-json and --train-images, or DATASETS.TRAIN.")
    with constructing("DATASETS.TRAIN", {"DATASETS.TRAIN": cfg.DATASETS.TRAIN}):
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    repeats = cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    return build_train_loader(
        dataset=dataset,
        mapper=_mapper(cfg, True),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=cfg.SEED,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        repeat_threshold=cfg.DATALOADER.REPEAT_THRESHOLD if repeats else 0.0,
    )


def _mapper(cfg, is_train):
    with constructing("INPUT", flatten(cfg.INPUT, "INPUT.")):
        return build_mapper(cfg, is_train)


def annealing_settings(cfg: CfgNode) -> Dict[str, Any]:
    """The arguments of ``GradientAnnealing`` in ``cfg.SOLVER.GRADIENT_ANNEALING``; ``ConfigError`` for unknown ones."""
    return call_arguments(GradientAnnealing, cfg.SOLVER.GRADIENT_ANNEALING, _ANNEALING, taken=["model"])


def _derives(architecture, base) -> bool:
    return isinstance(architecture, type) and issubclass(architecture, base)
