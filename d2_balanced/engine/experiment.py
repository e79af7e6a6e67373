"""What a run needs, whichever config system it comes from: the meeting point of yacs and LazyConfig.

Whatever the two do differently is a method of :class:`Experiment`. Nothing else asks which of them it is, but the
tables, whose rows are yaml configs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from detectron2.data import MapDataset
from detectron2.evaluation import inference_on_dataset
from torch import nn

from ..config.added import Additions
from ..config.yacs import flatten
from ..data.coco_paths import register_train_val
from ..data.test_batches import SameSizeBatches
from ..modeling.fast_layers import set_layers
from ..evaluation.coco import INFERENCE
from ..utils.atomic import atomic_write
from ..utils.errors import ConfigError, usage
from ..utils.shipped import shipped_file
from .class_match import in_classes_of
from .schedule import Schedule
from .stopping import stoppable

__all__ = ["Experiment", "OwnData", "RunSettings"]

Classes = Tuple[Tuple[int, str], ...]  # (category id, name), in the order of the class indices


class OwnData(NamedTuple):
    """A COCO-format data set given by paths: annotation file and image folder, for training and for validation."""

    train_json: str = ""
    train_images: str = ""
    val_json: str = ""
    val_images: str = ""


class RunSettings(NamedTuple):
    """The plain settings of a run; the config keys are those of detectron2 (yacs | LazyConfig)."""

    output_dir: str  # OUTPUT_DIR | train.output_dir
    weights: str  # MODEL.WEIGHTS | train.init_checkpoint
    device: str  # MODEL.DEVICE | train.device
    seed: int  # SEED | train.seed; negative: drawn at the start
    batch_size: int  # SOLVER.IMS_PER_BATCH | dataloader.train.total_batch_size: images an optimizer step, all processes
    accumulate: int  # SOLVER.ACCUMULATE | train.accumulate
    amp: bool  # SOLVER.AMP.ENABLED | train.amp.enabled
    layers: Dict[str, Any]  # MODEL.LAYERS | train.layers: arguments of set_layers
    log_period: int  # SOLVER.LOG_PERIOD | train.log_period
    max_to_keep: Optional[int]  # SOLVER.MAX_TO_KEEP | train.checkpointer.max_to_keep; None: all checkpoints stay
    test_batch_size: int  # TEST.IMS_PER_BATCH | train.test_batch_size: images that the model evaluates at once
    best_metric: str  # TEST.BEST_METRIC | train.best_metric
    patience: int  # TEST.PATIENCE | train.patience; evaluations without progress, 0: no early stop
    test_aug: Dict[str, Any]  # TEST.AUG | train.test_aug: arguments of AugmentedRCNN
    augmented_test: bool  # TEST.AUG.ENABLED | train.test_aug.enabled: the last evaluation is also made with test_aug
    tracking: Dict[str, str]  # TRACKING | train.tracking: {"mlflow": experiment, "wandb": project}; empty names: not
    recording: Dict[str, Any]  # ANALYSIS | train.record_imbalance: arguments of RecordImbalance; empty: no recording


class Experiment(ABC):
    """A checked config that builds the parts of a run. Each method says what it reads or builds.

    Attributes:
        system: what its overrides are written in, "yaml" or "lazy".
        keys: ``{field of RunSettings or Schedule: key of the config}``, of those that a command sets or keeps as they are.
        cfg: the config itself, a ``CfgNode`` or a ``DictConfig``.
        reference_batch_size: the batch size of the config file, without overrides: what its schedule was made for;
            None where the experiment is not of a file.
        classes: those of the checkpoint that was opened, as in ``RunIdentity.classes``; empty if it does not say.
        data_notes, data_warnings: what the log is to say of how the data were found and converted.
    """

    system: str
    keys: Mapping[str, str]
    saved_config_header = ""  # comment lines above a saved config
    reference_batch_size: Optional[int] = None
    classes: Classes = ()
    data_notes: Sequence[str] = ()
    data_warnings: Sequence[str] = ()
    _used_data: Optional[OwnData] = None

    def __init__(self, cfg):
        self.cfg = cfg

    @classmethod
    def from_config(
        cls, cfg, overrides: Sequence[str] = (), own_data: OwnData = OwnData(), fragments: Sequence[str] = ()
    ) -> Experiment:
        """The experiment of a config as its file has it, then the fragments, the overrides, and the paths of own data.

        ``cfg`` is changed; fragments are paths, or names of what comes along. Raises ``ConfigError`` for what is wrong.
        """
        late = [word for word in map(str, overrides) if word.startswith("--")]
        if late:
            raise ConfigError(f"{late[0]} stands after the config overrides; move it before them.")
        if fragments:
            cls._add_all(cfg, fragments)
        reference = cls._batch_size(cfg)
        cls._override(cfg, overrides)
        experiment = cls(cfg)
        experiment.reference_batch_size = reference
        experiment.set_own_data(own_data)
        return experiment

    @staticmethod
    @abstractmethod
    def _batch_size(cfg) -> Optional[int]:
        """The batch size in ``cfg``, which has not been checked; None if there is none."""

    @classmethod
    def _add_all(cls, cfg, fragments: Sequence[str]) -> None:
        additions, settings = Additions(), flatten(cls._settings_of(cfg), lists=True)
        for name in fragments:
            cls._add(cfg, shipped_file(name))
            before, settings = settings, flatten(cls._settings_of(cfg), lists=True)
            additions.check(name, before, settings)

    @staticmethod
    @abstractmethod
    def _settings_of(cfg) -> Mapping:
        """All settings of ``cfg`` as plain mappings and lists."""

    @staticmethod
    @abstractmethod
    def _add(cfg, path: str) -> None:
        """Change ``cfg`` as the fragment in the file ``path`` says."""

    @staticmethod
    @abstractmethod
    def _override(cfg, overrides: Sequence[str]) -> None:
        """Merge the words of a command line, in the form that the config system has, into ``cfg``."""

    @staticmethod
    @abstractmethod
    def words(settings: Mapping[str, str]) -> List[str]:
        """``{key: value}`` as the words of a command line."""

    @abstractmethod
    def value_of(self, key: str) -> Any:
        """The value of a key; None where the config has none (a component's argument at its default)."""

    @property
    @abstractmethod
    def settings(self) -> RunSettings:
        """The plain settings, as they are now."""

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The length of training, as it is now."""

    @abstractmethod
    def set_schedule(self, schedule: Schedule) -> None:
        """Write ``schedule`` into the config."""

    @abstractmethod
    def set_run(
        self,
        *,
        seed: Optional[int] = None,
        device: Optional[str] = None,
        output_dir: Optional[str] = None,
        weights: Optional[str] = None,
    ) -> None:
        """Write what was decided at the start into the config, so that the saved config reproduces the run."""

    @property
    @abstractmethod
    def own_data(self) -> OwnData:
        """The data sets that the config gives by paths."""

    @abstractmethod
    def set_own_data(self, own_data: OwnData) -> None:
        """Write those paths into the config that are not empty."""

    def use_own_data(self) -> None:
        """Register the data sets that are given by paths, and take the number of classes from them; else do nothing.

        Reads the annotation files; a second call does not. Raises ``DataError`` if they are missing or are no COCO
        files.
        """
        own_data = self.own_data
        if own_data == self._used_data:
            return
        train, val = register_train_val(*own_data)
        self._used_data = own_data
        if train or val:
            self.set_datasets(train.name if train else None, val.name if val else None)
            self.num_classes = (train or val).num_classes

    @abstractmethod
    def set_datasets(self, train: Optional[str], test: Optional[str]) -> None:
        """Train on the registered set ``train`` (None: as the config says), evaluate on ``test`` (None: on none)."""

    @property
    @abstractmethod
    def train_datasets(self) -> Sequence[str]:
        """Names of the training sets."""

    @property
    @abstractmethod
    def test_datasets(self) -> Sequence[str]:
        """Names of the evaluated data sets; empty if there is nothing to evaluate on."""

    @property
    @abstractmethod
    def proposal_files(self) -> Sequence[Tuple[Sequence[str], Sequence[str]]]:
        """(names of data sets, their files of precomputed proposals), for training and for evaluation; or empty."""

    @property
    @abstractmethod
    def num_classes(self) -> Optional[int]:
        """Number of classes that the model is built for; None if it knows none (a proposal network).

        Setting it is the one way in which the number of a data set's classes reaches the model.
        """

    @num_classes.setter
    @abstractmethod
    def num_classes(self, number: int) -> None:
        pass

    @property
    @abstractmethod
    def mask_format(self) -> Optional[str]:
        """"polygon" or "bitmask" if masks are trained, else None."""

    @property
    @abstractmethod
    def strict_data(self) -> bool:
        """Whether warnings of the data check are errors."""

    @abstractmethod
    def build_mapper(self, is_train: bool):
        """The data mapper of training or evaluation; None if the config names none."""

    @abstractmethod
    def make_recordable(self) -> None:
        """Replace detectron2's ``StandardROIHeads`` or ``CascadeROIHeads`` in the config by ``BalancedROIHeads``.

        Those can be recorded, and weights, losses, gradients and detections stay the same to the last bit
        (tests/modeling/roi_heads). All other heads are left as they are.
        """

    @abstractmethod
    def record_in_training(self) -> None:
        """Make the heads recordable, and switch recording on: ``ANALYSIS.RECORD``, ``train.record_imbalance``."""

    @abstractmethod
    def require_plain_sgd(self) -> None:
        """Raise ``ConfigError`` if the optimizer is not SGD: the linear rule of ``Schedule.for_batch_size`` is SGD's."""

    @abstractmethod
    def build_loader(self):
        """The training loader (reads the annotations)."""

    def build_model(self) -> nn.Module:
        """The model on its device, with random weights, its layers as the config says."""
        model = self._build_model()
        with usage("MODEL.LAYERS (yaml), train.layers (LazyConfig)", ValueError):
            set_layers(model, **self.settings.layers)
        return model

    @abstractmethod
    def _build_model(self) -> nn.Module:
        """detectron2's part of ``build_model``."""

    def build_without_memory(self) -> Optional[nn.Module]:
        """The model without memory for its weights, to see whether it can be built; the config's device is changed.

        None where that cannot be told; raises what building it does.
        """
        self.set_run(device="meta")
        try:
            with torch.device("meta"):
                return self.build_model()
        except RuntimeError:  # somebody's component that reads numbers in its constructor
            return None

    @property
    def ddp_settings(self) -> Dict[str, Any]:
        """Arguments of ``DistributedDataParallel`` that the config sets."""
        return {}

    @abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's parameters."""

    @abstractmethod
    def build_scheduler(self, optimizer: torch.optim.Optimizer):
        """The learning rate's torch scheduler."""

    @abstractmethod
    def build_method_hooks(self, model: nn.Module) -> List[Any]:
        """Hooks that belong to a training method, such as gradient annealing."""

    @abstractmethod
    def build_test(self, name: str, subfolder: str = INFERENCE) -> Tuple[Any, Any]:
        """Loader and evaluator of the test data set ``name``, which writes to ``subfolder`` of the output folder."""

    def check_evaluation(self) -> None:
        """Build what evaluates, read an image, and drop it all: what fails is told before training, not after.

        ``ConfigError`` for a best metric that the evaluator knows it will not give.
        """
        metric = self.settings.best_metric
        judge = next((name for name in self.test_datasets[1:] if metric.startswith(f"{name}/")), None)
        for name in self.test_datasets:
            loader, evaluator = self.build_test(name)
            images = getattr(loader, "dataset", None)
            if isinstance(images, MapDataset) and len(images):
                _ = images[0]
            if name == (judge or self.test_datasets[0]) and hasattr(evaluator, "require_metric"):
                with usage(self.keys["best_metric"], ValueError):
                    evaluator.require_metric(metric[len(f"{judge}/"):] if judge else metric)

    def evaluate(
        self,
        model: nn.Module,
        classes: Classes = (),
        stop: Optional[Callable[[], bool]] = None,
        subfolder: str = INFERENCE,
    ) -> Dict[str, Any]:
        """``{task: {metric: value}}`` of the first test data set, and ``{data set: {task: ...}}`` of each further one.

        ``{}`` on all but the main process; all of them call it.

        Args:
            classes: what the model was trained on; each data set's classes are matched to them by name. Empty: the
                model's classes are the data set's.
            stop: asked before each image whether to raise ``EvaluationStopped``, in all processes.
            subfolder: where the evaluators write, below the output folder.
        """
        results: Dict[str, Any] = OrderedDict()
        for index, name in enumerate(self.test_datasets):
            loader, evaluator = self.build_test(name, subfolder)
            if stop is not None:
                loader, evaluator = stoppable(loader, evaluator, stop)
            if self.settings.test_batch_size > 1:
                loader = SameSizeBatches(loader, self.settings.test_batch_size)
            found = inference_on_dataset(in_classes_of(model, classes, name), loader, evaluator)
            results.update({name: found} if index and found else found)
        return results

    @abstractmethod
    def describe(self) -> str:
        """What a reader of the log wants to know of the config: the settings that are not at their defaults."""

    @abstractmethod
    def config_text(self) -> str:
        """The whole config as YAML; empty for a LazyConfig with objects that YAML cannot hold."""

    def save_config(self, path: str) -> None:
        """Write the whole config as YAML."""
        with atomic_write(path, "w") as file:
            file.write(self.saved_config_header + self.config_text())
