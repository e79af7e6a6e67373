"""The evaluation with test-time augmentation: beside the plain one, in both config systems, refused before training."""

import json

import pytest
from d2_balanced.engine import run
from d2_balanced.engine.augmented_test import augmented
from d2_balanced.engine.checkpoint import BalancedCheckpointer
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from detectron2.evaluation import inference_on_dataset
from omegaconf import OmegaConf
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config, train_net


def lazy_experiment(folder, *words):
    data = OwnData(*make_dataset(folder / "data", images=2) * 2)
    own = ["train.device=cpu", f"train.output_dir={folder / 'run'}", "train.test_aug.min_sizes=[48,64]", *words]
    experiment = open_experiment(quick_config("faster_rcnn", "py"), [*LAZY_TINY, *own], data)
    experiment.use_own_data()
    return experiment


def test_a_lazy_checkpoint_is_evaluated_in_both_ways(tmp_path):
    experiment = lazy_experiment(tmp_path, "train.test_aug.enabled=true")
    BalancedCheckpointer(experiment.build_model(), str(tmp_path)).save("random")
    experiment.set_run(weights=str(tmp_path / "random.pth"))
    before = OmegaConf.to_container(experiment.cfg.dataloader.evaluator, resolve=False)
    results = run.evaluate(experiment, resume=False)
    assert list(results) == ["bbox", "bbox_TTA"]
    assert OmegaConf.to_container(experiment.cfg.dataloader.evaluator, resolve=False) == before
    found = {}
    for name in ("inference", "inference_TTA"):
        (path,) = (tmp_path / "run" / name).glob("*/coco_instances_results.json")
        found[name] = json.loads(path.read_text())
    assert found["inference"] and found["inference_TTA"] and found["inference"] != found["inference_TTA"]


def test_an_evaluator_of_one_s_own_gets_a_folder_of_its_own(tmp_path):
    experiment = lazy_experiment(tmp_path)
    evaluator = experiment.cfg.dataloader.evaluator
    evaluator._target_ = "detectron2.evaluation.COCOEvaluator"
    del evaluator["max_dets"]
    evaluator.use_fast_impl = False
    (name,) = experiment.test_datasets
    loader, plain = experiment.build_test(name)
    loader, its_own = experiment.build_test(name, "inference_TTA")
    assert plain._output_dir == str(tmp_path / "run") and its_own._output_dir == str(tmp_path / "run" / "inference_TTA")
    model = augmented(experiment, experiment.build_model().eval())
    inference_on_dataset(model, loader, its_own)
    assert (tmp_path / "run" / "inference_TTA" / "coco_instances_results.json").exists()
    assert not model.training and not model.model.training  # it was in evaluation mode, and is


@pytest.mark.parametrize("words, told", [
    (["TEST.AUG.MIN_SIZES", "()"], "min_sizes must have one size or more"),
    (["TEST.AUG.MAX_SIZE", "0"], "TEST.AUG.MAX_SIZE"),
])  # fmt: skip
def test_wrong_sizes_are_told_before_training(tmp_path, words, told, capsys):
    data = data_arguments(*[make_dataset(tmp_path / "data", images=2)] * 2)
    config = ["--config-file", quick_config("faster_rcnn"), "--output-dir", tmp_path / "run"]
    assert train_net(*config, *data, *TINY, "MODEL.DEVICE", "cpu", "TEST.AUG.ENABLED", True, *words) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "run" / "model_final.pth").exists()


def test_a_detector_without_augmentation_is_told_before_training(tmp_path, capsys):
    data = data_arguments(*[make_dataset(tmp_path / "data", images=2)] * 2)
    config = ["--config-file", quick_config("retinanet"), "--output-dir", tmp_path / "run"]
    assert train_net(*config, *data, *TINY, "MODEL.DEVICE", "cpu", "TEST.AUG.ENABLED", True) == 2
    assert "BalancedRetinaNet" in capsys.readouterr().err and not (tmp_path / "run" / "model_final.pth").exists()
