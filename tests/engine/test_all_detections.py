"""TEST.DETECTIONS_PER_IMAGE -1, which keeps all detections: in both config systems, and where it is refused."""

import pytest
from tiny_runs import LAZY_TINY, TINY, make_dataset, quick_config

from d2_balanced.config import ConfigError
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from d2_balanced.modeling.test_limits import limits_of

KEY, ARGUMENT = "TEST.DETECTIONS_PER_IMAGE", "model.roi_heads.box_predictor.test_topk_per_image"
YAML, LAZY = quick_config("faster_rcnn"), quick_config("faster_rcnn", "py")
OF_DENSE = "model.max_detections_per_image"


@pytest.mark.parametrize("config, words", [(YAML, [*TINY, KEY, "-1"]), (LAZY, [*LAZY_TINY, f"{ARGUMENT}=-1"])])
def test_both_config_systems_take_it_and_evaluate_cocos_100(config, words, tmp_path):
    annotations, images = make_dataset(tmp_path / "data", images=2)
    experiment = open_experiment(config, words, OwnData(val_json=str(annotations), val_images=str(images)))
    experiment.use_own_data()
    experiment.set_run(device="cpu")
    assert limits_of(experiment.build_model()).detections == -1
    assert experiment.build_test("own_val")[1].max_dets == 100


@pytest.mark.parametrize("config, words, message", [
    (quick_config("retinanet"), [KEY, "-1"], f"{KEY}: -1 does not go with MODEL.META_ARCHITECTURE: BalancedRetinaNet, bec"),
    (quick_config("fcos"), [KEY, "-1"], f"{KEY}: -1 does not go with MODEL.META_ARCHITECTURE: BalancedFCOS, because only"),
    (quick_config("retinanet", "py"), [f"{OF_DENSE}=-1"], f"{OF_DENSE}: must be 1 or more, got -1"),
    (quick_config("fcos", "py"), [f"{OF_DENSE}=-1"], f"{OF_DENSE}: must be 1 or more, got -1"),
    (YAML, [KEY, "-2"], f"{KEY}: must be 1 or more or -1, got -2"),
    (LAZY, [f"{ARGUMENT}=-2"], f"{ARGUMENT}: must be 1 or more or -1, got -2"),
])  # fmt: skip
def test_elsewhere_it_is_refused(config, words, message):
    with pytest.raises(ConfigError, match=message):
        open_experiment(config, words)
