"""Every rule of the imbalance report on made-up counts, both ways; what it recommends can be switched on."""

import ast
import os
import pathlib
import shlex

import choices
import numpy as np
import outcomes
import pytest
from d2_balanced.recording.counts import CLASS_FIELDS, FIELDS
from d2_balanced.recording.file import Recording
from d2_balanced.analysis.report.findings import RULES, judge
from d2_balanced.analysis.report.gather import RunData, components_of
from d2_balanced.analysis.report.page import write_page
from d2_balanced.analysis.report.treatments import TREATMENTS
from d2_balanced.config import check_config, load_lazy, load_yaml, merge_overrides
from d2_balanced.config.yaml_files import read_with_bases
from d2_balanced.config.yacs import flatten
from d2_balanced.engine.from_yacs import annealing_settings
from d2_balanced.engine.gradient_annealing import annealing_hooks
from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY, PROPOSAL_MATCHER_REGISTRY, PROPOSAL_SAMPLER_REGISTRY
from detectron2.config import instantiate
from detectron2.modeling import build_model
from paths import ROOT
from tiny_runs import quick_config


def bins(**amounts):
    """20 bins of an IoU; ``at_55=3`` puts 3 into the bin from 0.55."""
    values = np.zeros(20)
    for name, amount in amounts.items():
        values[round(int(name[3:]) / 5)] = amount
    return values


def by_number(**amounts):
    """31 entries; ``at_4=3`` puts 3 into entry 4."""
    values = np.zeros(31)
    for name, amount in amounts.items():
        values[int(name[3:])] = amount
    return values


def fields(**given):
    sizes = {**FIELDS, **{name: 3 for name in CLASS_FIELDS}}
    return {name: np.asarray(given.get(name, np.zeros(size)), dtype=float) for name, size in sizes.items()}


def data(*windows, components=(), evaluations=None, by_objects=None, names=("cat", "dog", "eel")):
    recorded = [(10 * k, 10 * k + 9, {(0, 0): window}) for k, window in enumerate(windows)]
    recording = Recording(recorded, [])
    return RunData("run", "", recording, [], evaluations or {}, by_objects or {}, names, frozenset(components), {})


def finding(title, run):
    (found,) = [each for each in judge(run) if each.title == title]
    return found


def sampled(positives, correct=0, appended=0):
    counts = {"images": [10], "positives": [positives], "appended_gt": [appended], "positives_correct": [correct]}
    return fields(**counts)


def crowds(positives):
    images = by_number(at_2=20, at_9=20)
    return fields(images_by_objects=images, positives_by_objects=by_number(at_2=100, at_9=positives))


def regressed(after):
    return fields(
        positive_ious=bins(at_85=100), positive_iou_sum=bins(at_85=87), refined_iou_sum=bins(at_85=100 * after)
    )


def gradients(good):
    return fields(positive_ious=bins(at_50=200, at_75=100), box_gradient=bins(at_50=200, at_75=100 * good))


def improving(late):
    return [fields(images=[10], proposal_ious=bins(at_65=number)) for number in (20, late)]


def evaluated(ap90):
    return {"val": {"metrics": {"bbox": {"AP50": 60.0, "AP90": ap90}}}}


def groups(many):
    return {"val": {"AP[1-3]": 40.0, "AP[8+]": many, "images[1-3]": 20, "images[8+]": 30}}


def predicted(true):
    sums = {"predicted_iou_sum": bins(at_80=80), "predicted_iou_true_sum": bins(at_80=100 * true)}
    return fields(predicted_ious=bins(at_80=100), **sums)


CASES = {
    "Easy negatives": (
        data(fields(negative_ious=bins(at_0=70, at_30=30))), "70%", data(fields(negative_ious=bins(at_0=50, at_30=50))),
    ),
    "Few positives early in training": (
        data(sampled(60, 10, 40), sampled(90, 80, 40)), "2.0 positives an image", data(sampled(60), sampled(60)),
    ),
    "Images with many and with few objects": (data(crowds(400)), "4.0 times", data(crowds(200))),
    "Some objects take most samples": (
        data(fields(objects_by_samples=by_number(at_0=75, at_8=25))), "100%",
        data(fields(objects_by_samples=by_number(at_2=75, at_3=25))),
    ),
    "Objects without positives": (
        data(fields(objects_by_positives=by_number(at_0=30, at_4=70))), "30%",
        data(fields(objects_by_positives=by_number(at_0=10, at_4=90))),
    ),
    "Rare classes": (
        data(fields(class_objects=[50, 0, 2], class_positives=[200, 0, 10])), '"cat" has 20.0 times',
        data(fields(class_objects=[50, 9, 9], class_positives=[200, 90, 90])),
    ),
    "Few positives that fit well": (
        data(fields(positive_ious=bins(at_55=95, at_85=5))), "5%", data(fields(positive_ious=bins(at_55=80, at_85=20))),
    ),
    "Regression makes good boxes worse": (data(regressed(0.84)), "from 0.870 to 0.840", data(regressed(0.9))),
    "Proposals become better in training": (data(*improving(60)), "3.0 times", data(*improving(22))),
    "Good boxes hardly train": (data(gradients(0.3)), "0.30 times", data(gradients(1.0))),
    "Loose boxes": (
        data(fields(), evaluations=evaluated(6.0)), "AP90 is 6.0", data(fields(), evaluations=evaluated(20.0)),
    ),
    "AP falls with the number of objects": (
        data(fields(), by_objects=groups(30.0)), "40.0 on images", data(fields(), by_objects=groups(38.0)),
    ),
    "Predicted IoUs are off": (data(predicted(0.6)), "0.20", data(predicted(0.78))),
}  # fmt: skip


def test_every_rule_has_a_case():
    assert [rule.title for rule in RULES] == list(CASES)


@pytest.mark.parametrize("title", CASES)
def test_rules_both_ways(title):
    out_of_balance, number, balanced = CASES[title]
    rule = next(rule for rule in RULES if rule.title == title)
    found = finding(title, out_of_balance)
    assert found.kind == "suggests" and number in found.text and rule.advice in found.text
    assert found.treatments == [TREATMENTS[name] for name in rule.treatments]
    found = finding(title, balanced)
    assert found.kind == "balanced" and found.treatments == [] and rule.advice not in found.text
    assert finding(title, data(fields())).kind == "unknown", "there is nothing to judge"


@pytest.mark.parametrize("title", ["Few positives early in training", "Proposals become better in training"])
def test_one_window_has_no_history(title):
    run = CASES[title][0]
    (first, *_), _ = run.recording
    found = finding(title, run._replace(recording=Recording([first], [])))
    assert found.kind == "unknown" and "two windows" in found.text


def test_one_class_is_not_imbalanced():
    window = {**fields(), "class_objects": np.array([9.0]), "class_positives": np.array([900.0])}
    assert "one class" in finding("Rare classes", data(window)).text


def test_what_is_on_already_is_said():
    out_of_balance = CASES["Easy negatives"][0]
    assert finding("Easy negatives", out_of_balance).in_use == []
    found = finding("Easy negatives", out_of_balance._replace(components=frozenset({"IoUBalancedSampler"})))
    assert found.in_use == [TREATMENTS["iou_balanced_negatives"].name] and found.treatments == []


@pytest.mark.parametrize("title, good, bad", [
    ("Regression makes good boxes worse", regressed(0.9), regressed(0.84)),
    ("Good boxes hardly train", gradients(1.0), gradients(0.3)),
    ("Predicted IoUs are off", predicted(0.78), predicted(0.6)),
])  # fmt: skip
def test_what_the_heads_do_is_judged_at_the_end(title, good, bad):
    assert finding(title, data(bad, bad, bad, bad, good)).kind == "balanced"
    assert finding(title, data(good, good, good, good, bad)).kind == "suggests"


def test_the_branch_with_most_positives_is_judged():
    few = {**fields(negative_ious=bins(at_0=100)), "positives": np.array([1.0])}
    many = {**fields(negative_ious=bins(at_30=100)), "positives": np.array([9.0])}
    run = data(fields())._replace(recording=Recording([(0, 9, {(0, 0): few, (0, 1): many, (1, 0): few})], []))
    assert finding("Easy negatives", run).kind == "balanced"


@pytest.mark.parametrize("name", TREATMENTS)
def test_treatments_can_be_switched_on(name):
    treatment = TREATMENTS[name]
    for path in (treatment.readme, treatment.fragment):
        assert not path or os.path.isfile(os.path.join(ROOT, path)), path
    assert treatment.yaml or treatment.fragment
    if treatment.yaml:
        cfg = load_yaml(quick_config("faster_rcnn"), shlex.split(treatment.yaml))
        check_config(cfg)
        assert cfg != load_yaml(quick_config("faster_rcnn"))
    if treatment.lazy:
        assert load_lazy(quick_config("faster_rcnn", "py"), treatment.lazy.split()) is not None
    assert treatment.lazy or treatment.function
    if treatment.function:
        name, path = treatment.function.split("(model) of ")
        tree = ast.parse(pathlib.Path(ROOT, path).read_text(encoding="utf-8"))
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def suggested(title, *components):
    """``(treatments by the key that they have in TREATMENTS, names of the refused ones)`` where these are on."""
    found = finding(title, CASES[title][0]._replace(components=frozenset(components)))
    keys = {treatment.name: key for key, treatment in TREATMENTS.items()}
    return {keys[each.name]: each for each in found.treatments}, {keys[name]: by for name, by in found.refused.items()}


@pytest.mark.parametrize("title, left, refused", [
    ("Loose boxes", ["dynamic_labels"], ["dynamic_smooth_l1"]),
    ("Regression makes good boxes worse", [], ["dynamic_smooth_l1"]),
    ("Good boxes hardly train", [], ["dynamic_smooth_l1", "balanced_l1"]),
])  # fmt: skip
def test_no_box_loss_beside_an_iou_branch(title, left, refused):
    to_try, not_to_try = suggested(title, "IoUBranch", "SmoothL1")
    assert list(to_try) == left and not_to_try == dict.fromkeys(refused, ["IoUBranch"])
    assert set(refused) <= set(suggested(title, "PredictorBoxes", "SmoothL1")[0])


@pytest.mark.parametrize("loss", ["BalancedL1", "DynamicSmoothL1"])
def test_no_iou_branch_beside_a_box_loss(loss):
    to_try, refused = suggested("Few positives that fit well", loss)
    assert list(to_try) == ["loops"] and refused == {"generated_boxes": [loss]}


def test_samplers_are_combined():
    positives = suggested("Some objects take most samples", "IoUBalancedSampler")[0]["instance_balanced_positives"]
    assert positives.yaml == "MODEL.BALANCED.SAMPLER.POSITIVES instance_balanced" and positives.in_place_of == ()
    negatives = suggested("Easy negatives", "InstanceBalancedSampler")[0]["iou_balanced_negatives"]
    assert negatives.yaml.endswith(" MODEL.BALANCED.SAMPLER.POSITIVES instance_balanced")
    assert negatives.fragment and negatives.in_place_of == ()
    negatives = suggested("Easy negatives", "HardRatioSampler")[0]["iou_balanced_negatives"]
    assert negatives.fragment == "", "its positives are others"


@pytest.mark.parametrize("title, treatment, on", [
    ("Good boxes hardly train", "dynamic_smooth_l1", "BalancedL1"),
    ("Good boxes hardly train", "balanced_l1", "DynamicSmoothL1"),
    ("Few positives that fit well", "loops", "CascadeStages"),
    ("Some objects take most samples", "instance_balanced_positives", "HardRatioSampler"),
])  # fmt: skip
def test_what_is_replaced_is_said(title, treatment, on):
    assert suggested(title, on, "FixedMatcher")[0][treatment].in_place_of == (on,)
    defaults = ("RandomSampler", "SmoothL1", "SingleStage", "FixedMatcher", "PredictorBoxes")
    assert suggested(title, *defaults)[0][treatment].in_place_of == ()


@pytest.mark.parametrize("registry, title", [
    (BOX_LOSS_REGISTRY, "Good boxes hardly train"), (PROPOSAL_MATCHER_REGISTRY, "Proposals become better in training"),
    (PROPOSAL_SAMPLER_REGISTRY, "Easy negatives"),
])  # fmt: skip
def test_a_component_of_another_package_is_replaced_too(monkeypatch, registry, title):
    monkeypatch.setitem(registry._obj_map, "OwnComponent", object)
    to_try, _ = suggested(title, "OwnComponent", "Unregistered")
    assert {treatment.in_place_of for treatment in to_try.values()} == {("OwnComponent",)}


def test_the_page_says_what_is_replaced_and_what_is_refused(tmp_path):
    run = CASES["Regression makes good boxes worse"][0]
    pages = []
    for components in ({"IoUBranch", "CascadeStages"}, {"BalancedL1", "branches"}):
        on = run._replace(components=frozenset(components))
        write_page(on, judge(on), {}, [], str(tmp_path / "page.html"))
        pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "refused beside IoUBranch: dynamic SmoothL1 (Dynamic R-CNN)." in pages[0]
    assert "dynamic SmoothL1 (Dynamic R-CNN), in place of BalancedL1:" in pages[1]
    assert "for the first branch" in pages[1] and "for the first branch" not in pages[0]


# Settings at these seats that RunData's components do not tell from others, or only in part.
UNSEEN = ("FixedMatcher, ignored band", "SmoothL1, beta 1", "GIoU", "two branches, a sampler each")
SEEN_SEATS = ("pyramid", "matcher", "RoI sampler", "stages", "branches", "IoU branch", "box loss", "gradients")
SEEN = [choice for seat in SEEN_SEATS for choice in choices.SEATS[seat] if choice.name not in UNSEEN]


def built(cfg):
    """``(components in use, "")`` of the model that a config makes, or ``(None, why it is refused)``."""
    try:
        check_config(cfg)
        model = build_model(cfg)
        hooks = annealing_hooks(annealing_settings(cfg), "SOLVER.GRADIENT_ANNEALING", model)
    except ValueError as error:
        return None, str(error)
    # Of both, the model's class names do not tell: RunData has the first from what the run logged.
    logged = {"GradientAnnealing"} if hooks else set()
    repeats = any(branch.sampler.repeats_positives for branch in model.roi_heads.branches)
    return components_of(model) | logged | ({"HardRatioSampler"} if repeats else set()), ""


def ways(treatment):
    """The settings of every way to switch a treatment on in yaml, as words."""
    if treatment.yaml:
        yield shlex.split(treatment.yaml)
    if treatment.fragment:
        files = read_with_bases(os.path.join(ROOT, treatment.fragment))
        yield [word for _, settings in files for pair in flatten(settings).items() for word in pair]


def outcomes_of(treatment, cfg):
    for words in ways(treatment):
        changed = cfg.clone()
        merge_overrides(changed, words)
        yield built(changed)


@pytest.mark.parametrize("choice", SEEN, ids=lambda choice: choice.name)
def test_what_is_suggested_beside_a_component_is_built_and_says_what_it_switches_off(choice):
    cfg = outcomes.config_of(choice)
    components, _ = built(cfg)
    found = [finding(title, run._replace(components=components)) for title, (run, _, _) in CASES.items()]
    defaults = {"RandomSampler", "SmoothL1", "SingleStage", "FixedMatcher", "PredictorBoxes", "FPN"}
    for treatment in {each.name: each for one in found for each in one.treatments}.values():
        for after, refusal in outcomes_of(treatment, cfg):
            assert refusal == "", treatment.name
            assert treatment.component in after or not treatment.component
            assert components - after - defaults == set(treatment.in_place_of), treatment.name
    for treatment in (each for each in TREATMENTS.values() if any(each.name in one.refused for one in found)):
        assert all(refusal for _, refusal in outcomes_of(treatment, cfg)), f"{treatment.name} can be built"


@pytest.mark.parametrize("loss", ["BalancedL1", "DynamicSmoothL1"])
def test_a_box_loss_in_every_stage_of_a_lazy_cascade(loss):
    to_try, _ = suggested("Good boxes hardly train", "CascadeStages")
    (treatment,) = [each for each in to_try.values() if each.component == loss]
    model = load_lazy(quick_config("cascade_rcnn", "py"), treatment.lazy.split()).model
    assert [type(instantiate(each.box_loss)).__name__ for each in model.roi_heads.box_predictor] == [loss] * 3


@pytest.mark.parametrize("on, title, positives", [
    ("IoUBalancedSampler", "Some objects take most samples", "instance_balanced"),
    ("InstanceBalancedSampler", "Easy negatives", "instance_balanced"),
    ("HardRatioSampler", "Easy negatives", "hard_ratio"),
])  # fmt: skip
def test_samplers_are_combined_in_lazy_config(on, title, positives):
    (treatment,) = suggested(title, on)[0].values()
    words = [f"model.roi_heads.proposal_sampler._target_={on}"]
    heads = load_lazy(quick_config("faster_rcnn", "py"), words + treatment.lazy.split()).model.roi_heads
    sampler = instantiate(heads.proposal_sampler)
    assert type(sampler).__name__ == "IoUBalancedSampler" and sampler.positives == positives
