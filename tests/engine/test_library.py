"""The package as a library: the script of docs/LIBRARY.md, hooks in detectron2's trainers, and what tells of them."""

import logging
import os
import re
import runpy
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import SimpleTrainer
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.checkpoint import Checkpointer
from omegaconf import OmegaConf
from paths import ROOT
from tiny_runs import TINY, data_arguments, make_dataset, train_net

import d2_balanced
from annealing_toys import Detector, data
from config import twins
from d2_balanced.config import get_balanced_cfg, load_yaml
from d2_balanced.engine.gradient_annealing import GradientAnnealing
from d2_balanced.engine.hooks import EndIteration
from d2_balanced.engine.rng import ReseedEveryStep
from d2_balanced.engine.trainer import BalancedTrainer
from d2_balanced.modeling.matcher import DynamicMatcher
from d2_balanced.utils.errors import ConfigError

CONFIG = os.path.join(ROOT, "projects", "DynamicRCNN", "configs", "dynamic_quick.yaml")
SHORT = [*TINY, "SOLVER.MAX_ITER", "4", "MODEL.DEVICE", "cpu"]
# Components that adapt in the second iteration, to what a detector without training has.
EAGER = f"""
_BASE_: {CONFIG}
MODEL: {{BALANCED: {{MATCHER: {{PERIOD: 2, K_IOU: 2}}, BOX_LOSS: {{PERIOD: 2, K_ERROR: 1, INITIAL_BETA: 100.0}}}}}}
"""
ANNEALED = ["SOLVER.GRADIENT_ANNEALING.INITIAL", "7.0"]


def script_of_the_docs():
    with open(os.path.join(ROOT, "docs", "LIBRARY.md"), encoding="utf-8") as file:
        (script,) = re.findall(r"^```python\n(# my_train.py\n.*?)^```", file.read(), flags=re.MULTILINE | re.DOTALL)
    return script


def test_the_script_of_the_docs_trains_as_train_net_does(tmp_path, monkeypatch):
    """Weights and adaptive state are equal to the bit, and the adaptive state has moved."""
    annotations, images = make_dataset(tmp_path / "data")
    script, config = script_of_the_docs(), tmp_path / "eager.yaml"
    assert os.path.relpath(CONFIG, ROOT) in script
    config.write_text(EAGER)
    (tmp_path / "my_train.py").write_text(script.replace(os.path.relpath(CONFIG, ROOT), str(config)))
    words = [annotations, images, *SHORT, "MODEL.ROI_HEADS.NUM_CLASSES", "2", "OUTPUT_DIR", str(tmp_path / "own")]
    monkeypatch.setattr(sys, "argv", ["my_train.py", *words])
    monkeypatch.chdir(ROOT)
    os.makedirs(tmp_path / "own")
    try:
        runpy.run_path(str(tmp_path / "my_train.py"))
    finally:
        DatasetCatalog.remove("mine")
        MetadataCatalog.remove("mine")
    data_words = data_arguments((annotations, images))
    assert train_net("--config-file", config, "--output-dir", tmp_path / "ours", *data_words, *SHORT, *ANNEALED) == 0
    own, ours = (
        torch.load(tmp_path / name / "model_final.pth", map_location="cpu", weights_only=False)["model"]
        for name in ("own", "ours")
    )
    assert set(ours) <= set(own)  # our checkpoints leave out what starts anew
    own = {name: torch.as_tensor(own[name]) for name in ours}
    assert [name for name in ours if own[name].numpy().tobytes() != torch.as_tensor(ours[name]).numpy().tobytes()] == []
    threshold, beta = own["roi_heads.proposal_matcher.threshold"], own["roi_heads.box_predictor.box_loss.beta"]
    assert threshold > 0.41 and beta < 99  # from 0.4 and 100


    saved = str(tmp_path / "ours" / "config.yaml")
    with open(saved) as file:
        assert "add_balanced_config(cfg)" in file.readline()
    with pytest.raises(KeyError, match="Non-existent config key"):
        get_cfg().merge_from_file(saved)
    cfg = get_cfg()
    d2_balanced.add_balanced_config(cfg)
    cfg.merge_from_file(saved)
    assert cfg.dump() == load_yaml(saved).dump()


def clipped_sgd(model):
    cfg = get_balanced_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 0.05
    torch.optim.SGD(model.parameters(), lr=0.1)  # torch then lets its hooks of a step be called by SGD.step, too
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)


class ScaledTrainer(SimpleTrainer):
    """What ``AMPTrainer`` does, without CUDA; the scaler's gradients are 4 times too large until it steps."""

    def run_step(self):
        losses = self.model(next(self._data_loader_iter))
        self.optimizer.zero_grad()
        (4 * sum(losses.values())).backward()
        for parameter in self.model.parameters():
            parameter.grad /= 4
        self.optimizer.step()


def trained(trainer_class, hooks, with_scheduler=False):
    model = Detector()
    optimizer = clipped_sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1000) if with_scheduler else None
    step = optimizer.step
    trainer = trainer_class(model, data(), optimizer)
    trainer.register_hooks(hooks)
    trainer.train(0, 6)
    assert optimizer.step == step  # left as it was
    return {name: value.clone() for name, value in model.state_dict().items()}, scheduler


@pytest.mark.parametrize("trainer_class", [SimpleTrainer, ScaledTrainer])
@pytest.mark.parametrize("with_scheduler", [False, True])
def test_annealing_in_detectron2_s_trainers_is_that_in_ours(trainer_class, with_scheduler):
    expected, _ = trained(BalancedTrainer, [GradientAnnealing(initial=7.0)])
    found, _ = trained(trainer_class, [GradientAnnealing(initial=7.0)], with_scheduler)
    plain, _ = trained(trainer_class, [])
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["roi_heads.box_head.weight"], plain["roi_heads.box_head.weight"])


def test_a_scheduler_made_during_training_finds_a_step_that_it_can_wrap():
    model = Detector()
    trainer = SimpleTrainer(model, data(), torch.optim.SGD(model.parameters(), lr=0.1))
    hook = GradientAnnealing(initial=7.0)
    trainer.register_hooks([hook])
    trainer.iter, trainer.max_iter = 0, 1
    hook.before_train()
    torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1)


def names_of(hooks):
    return [type(hook).__name__ for hook in hooks]


def test_which_hooks_there_are():
    cfg = get_balanced_cfg()
    assert names_of(d2_balanced.balanced_hooks(cfg)) == ["EndIteration"]
    cfg.SOLVER.GRADIENT_ANNEALING.INITIAL = 7.0
    names = ["ReseedEveryStep", "GradientAnnealing", "EndIteration"]
    assert names_of(d2_balanced.balanced_hooks(cfg, seed=3)) == names
    lazy = OmegaConf.create({"train": {"max_iter": 5}})
    assert names_of(d2_balanced.balanced_hooks(lazy)) == ["EndIteration"]
    lazy.train.gradient_annealing = {"initial": 7.0}
    assert names_of(d2_balanced.balanced_hooks(lazy, seed=3)) == names


def test_bad_settings_of_annealing_name_their_key():
    cfg = get_balanced_cfg()
    cfg.SOLVER.GRADIENT_ANNEALING.INITIAL = 0.5
    with pytest.raises(ConfigError, match="SOLVER.GRADIENT_ANNEALING"):
        d2_balanced.balanced_hooks(cfg)
    with pytest.raises(ConfigError, match="train.gradient_annealing"):
        d2_balanced.balanced_hooks(OmegaConf.create({"train": {"gradient_annealing": {"initial": 0.5}}}))


def test_keys_that_only_train_net_reads_are_named(caplog):
    cfg = get_balanced_cfg()
    cfg.SOLVER.ACCUMULATE, cfg.DATASETS.TRAIN_JSON = 2, "mine.json"
    d2_balanced.balanced_hooks(cfg)
    (record,) = caplog.records
    assert "SOLVER.ACCUMULATE, DATASETS.TRAIN_JSON" in record.getMessage()


@pytest.fixture(scope="module")
def detector():
    """Dynamic R-CNN with few channels whose config asks for annealing, and two images."""
    cfg = load_yaml(CONFIG, [*SHORT, *ANNEALED])
    torch.manual_seed(0)
    return build_model(cfg), twins.inputs(cfg), cfg


def warnings_of_training(detector, hooks, caplog, steps=2):
    """What is warned of in training a copy of the model by detectron2's trainer."""
    model, images, cfg = detector
    model = build_model(cfg)
    trainer = SimpleTrainer(model, [images] * steps, torch.optim.SGD(model.parameters(), lr=0.0))
    trainer.register_hooks([ReseedEveryStep(0), *hooks])
    with caplog.at_level(logging.WARNING, logger="d2_balanced"):
        trainer.train(0, steps)
    return [record.getMessage() for record in caplog.records if record.name.startswith("d2_balanced")]


def test_without_hooks_the_first_step_says_what_to_register(detector, caplog):
    said = warnings_of_training(detector, [], caplog)
    for part, hook in (("SOLVER.GRADIENT_ANNEALING", "GradientAnnealing"), ("DynamicMatcher", "EndIteration"),
                       ("DynamicSmoothL1", "EndIteration")):  # fmt: skip
        (message,) = [each for each in said if each.startswith(part)]  # once, not at every step
        assert f"no {hook} hook" in message and "balanced_hooks(cfg)" in message
    assert len(said) == 3


def test_with_the_hooks_nothing_is_said(detector, caplog):
    assert warnings_of_training(detector, d2_balanced.balanced_hooks(detector[2]), caplog) == []


def test_hooks_after_the_checkpointer_are_told(detector, caplog, tmp_path):
    checkpointer = PeriodicCheckpointer(Checkpointer(detector[0], str(tmp_path)), 100)
    hooks = [checkpointer, *d2_balanced.balanced_hooks(detector[2])]
    (message,) = warnings_of_training(detector, hooks, caplog, steps=1)
    assert "before the trainer's own hooks" in message


def test_each_hook_answers_for_its_own_part(detector, caplog):
    said = warnings_of_training(detector, [EndIteration()], caplog, steps=1)
    assert len(said) == 1 and "GradientAnnealing" in said[0]


def test_passes_that_train_nothing_do_not_count(detector, caplog):
    model, images, _ = detector
    model.eval()
    with torch.no_grad():
        model(images)
    assert not [record for record in caplog.records if "hook" in record.getMessage()]


def test_a_dynamic_matcher_that_is_shown_nothing_says_so_once(caplog):
    matcher = DynamicMatcher([0.5], [0, 1])
    matcher(torch.rand(2, 5))  # detectron2's ROI heads only match
    matcher.end_iteration(0), matcher.end_iteration(1)
    (record,) = caplog.records
    assert "BalancedROIHeads" in record.getMessage()


def test_a_config_without_our_keys_says_what_to_call():
    shapes = {name: ShapeSpec(channels=8, stride=4) for name in ("p2", "p3", "p4", "p5")}
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.IN_FEATURES = list(shapes)
    with pytest.raises(ConfigError, match=r"add_balanced_config\(cfg\)"):
        ROI_HEADS_REGISTRY.get("BalancedROIHeads")(cfg, shapes)
    with pytest.raises(ConfigError, match=r"add_balanced_config\(cfg\)"):
        d2_balanced.balanced_hooks(cfg)


def test_detectron2_merges_our_yaml_as_our_reader_does():
    cfg = get_cfg()
    d2_balanced.add_balanced_config(cfg)
    cfg.merge_from_file(CONFIG)
    assert cfg.dump() == load_yaml(CONFIG).dump()


def test_a_saved_config_of_a_loop_is_not_refused_for_lists_that_were_tuples(tmp_path):
    cfg = load_yaml(os.path.join(ROOT, "projects", "R3CNN", "configs", "r3_quick.yaml"), [*TINY, "MODEL.DEVICE", "cpu"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    merged = get_balanced_cfg()
    merged.merge_from_file(str(tmp_path / "config.yaml"))
    build_model(merged)


def test_what_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such"):
        d2_balanced.no_such
