"""Every config of the repository has a yaml and a lazy twin, and both are the same model and the same run."""

import os

import pytest
import twins

STEMS = twins.config_stems()


def test_configs_are_found():
    for name in ("configs/coco/faster_rcnn_R_50_FPN_1x", "configs/quick/faster_rcnn_R_18_FPN"):
        assert name in STEMS


@pytest.mark.parametrize("stem", STEMS)
def test_twins_agree(stem):
    """Equal state-dict keys and shapes, parameter counts, hyper-parameters, learning rates and data."""
    for ending in (".yaml", ".py"):
        assert os.path.isfile(os.path.join(twins.ROOT, stem + ending)), f"{stem} has no {ending} twin"
    cfg, lazy = twins.load_both(stem)

    differing = {name: pair for name, pair in twins.run_settings(cfg, lazy).items() if pair[0] != pair[1]}
    assert not differing
    yaml_rates, lazy_rates = twins.learning_rates(cfg, lazy)
    assert yaml_rates == pytest.approx(lazy_rates, rel=1e-9)
    for yaml_mapper, lazy_mapper in twins.mappers(cfg, lazy):
        assert yaml_mapper == lazy_mapper

    yaml_model, lazy_model = twins.build_both(cfg, lazy, device="meta")
    assert list(twins.shapes_of(yaml_model).items()) == list(twins.shapes_of(lazy_model).items())
    assert twins.trained(yaml_model) == twins.trained(lazy_model)
    assert twins.settings_of(yaml_model) == twins.settings_of(lazy_model)
    yaml_optimizer, lazy_optimizer = twins.optimizers(cfg, lazy, yaml_model, lazy_model)
    assert type(yaml_optimizer).__name__ == type(lazy_optimizer).__name__
    assert twins.groups_of(yaml_optimizer, yaml_model) == twins.groups_of(lazy_optimizer, lazy_model)
