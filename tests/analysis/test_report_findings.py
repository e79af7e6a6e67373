"""Every rule of the imbalance report on made-up counts, both ways; what it recommends can be switched on."""

import html
import os
import shlex

import choices
import numpy as np
import outcomes
import pytest
import torch
from d2_balanced.recording.counts import CLASS_FIELDS, FIELDS
from d2_balanced.recording.file import Recording
from d2_balanced.analysis.report.findings import RULES, judge
from d2_balanced.analysis.report.gather import RunData, components_of
from d2_balanced.analysis.report.page import write_page
from d2_balanced.analysis.report.treatments import TREATMENTS, beside
from d2_balanced.config import check_config, load_lazy, load_yaml, merge_overrides
from d2_balanced.config.yaml_files import read_with_bases
from d2_balanced.config.yacs import flatten
from d2_balanced.engine.from_yacs import YacsExperiment
from d2_balanced.engine.open import open_experiment
from d2_balanced.engine.run import load_experiment
from d2_balanced.modeling.box_losses import BalancedL1
from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY, PROPOSAL_SAMPLER_REGISTRY
from d2_balanced.modeling.sample_weights import SampleWeights
from d2_balanced.modeling.sampling import RandomSampler
from detectron2.config import instantiate
from d2_balanced.train import argument_parser
from d2_balanced.utils.shipped import shipped_file, shipped_fragments
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
    assert not treatment.readme or os.path.isfile(os.path.join(ROOT, treatment.readme))
    assert not treatment.fragment or treatment.fragment in shipped_fragments()
    assert treatment.yaml and (treatment.lazy or treatment.fragment)
    cfg = load_yaml(quick_config("faster_rcnn"), shlex.split(treatment.yaml))
    check_config(cfg)
    assert cfg != load_yaml(quick_config("faster_rcnn"))
    plain, lazy = lazy_experiment().config_text(), shlex.split(treatment.lazy)
    assert not lazy or lazy_experiment(*lazy).config_text() != plain
    added = lazy_experiment(fragments=[treatment.fragment] if treatment.fragment else [])
    assert not treatment.fragment or added.config_text() != plain


def experiment_of(*names, **settings):
    """A small detector with these choices (``tests/compatibility/choices.py``) and settings (``A__B=1``)."""
    chosen = [choice for choice in choices.all_choices() if choice.name in names]
    assert len(chosen) == len(names)
    cfg = outcomes.config_of(*chosen)
    merge_overrides(cfg, [word for key, value in settings.items() for word in (key.replace("__", "."), value)])
    return YacsExperiment(cfg)


def lazy_experiment(*words, model="faster_rcnn", fragments=()):
    return open_experiment(quick_config(model, "py"), ["train.device=cpu", *words], fragments=fragments)


def in_use(experiment):
    """``RunData.components`` of the run; the factor of gradient annealing is in what it logs."""
    model = experiment.build_model()
    return components_of(model) | ({"GradientAnnealing"} if experiment.build_method_hooks(model) else set())


def suggested(title, experiment):
    """``(treatments by the key that they have in TREATMENTS, why others are refused)`` of a run."""
    run = CASES[title][0]._replace(components=frozenset(in_use(experiment)))
    (found,) = [each for each in judge(run, experiment) if each.title == title]
    keys = {treatment.name: key for key, treatment in TREATMENTS.items()}
    return {keys[each.name]: each for each in found.treatments}, {keys[name]: why for name, why in found.refused.items()}


@pytest.mark.parametrize("title, left, refused", [
    ("Loose boxes", ["dynamic_labels"], ["dynamic_smooth_l1"]),
    ("Regression makes good boxes worse", [], ["dynamic_smooth_l1"]),
    ("Good boxes hardly train", [], ["dynamic_smooth_l1", "balanced_l1"]),
])  # fmt: skip
def test_no_box_loss_beside_an_iou_branch(title, left, refused):
    to_try, not_to_try = suggested(title, experiment_of("IoUBranch"))
    assert list(to_try) == left and list(not_to_try) == refused
    assert all("iou_branch=IoUBranch (MODEL.BALANCED.IOU_BRANCH)" in why for why in not_to_try.values())
    assert set(refused) <= set(suggested(title, experiment_of())[0])


@pytest.mark.parametrize("loss, named", [
    ("BalancedL1", "BalancedL1"), ("DynamicSmoothL1", "DynamicSmoothL1"), ("SmoothL1, beta 1", "SMOOTH_L1_BETA) 1.0"),
    ("GIoU", "BBOX_REG_LOSS_TYPE) giou"),
])  # fmt: skip
def test_no_iou_branch_beside_a_box_loss(loss, named):
    to_try, refused = suggested("Few positives that fit well", experiment_of(loss))
    assert list(to_try) == ["loops"] and list(refused) == ["generated_boxes"]
    assert named in refused["generated_boxes"]


@pytest.mark.parametrize("loss, key", [("SmoothL1, beta 1", "SMOOTH_L1_BETA"), ("GIoU", "BBOX_REG_LOSS_TYPE")])
def test_no_box_loss_beside_a_setting_of_detectron2_s(loss, key):
    to_try, refused = suggested("Good boxes hardly train", experiment_of(loss))
    assert to_try == {} and all(key in why for why in refused.values()) and len(refused) == 2


def test_no_sampler_for_branches_that_have_their_own():
    to_try, refused = suggested("Some objects take most samples", experiment_of("two branches, a sampler each"))
    assert to_try == {} and "every branch has a SAMPLER of its own" in refused["instance_balanced_positives"]
    (treatment,) = suggested("Some objects take most samples", experiment_of("two branches"))[0].values()
    assert "A branch of MODEL.BALANCED.BRANCHES with a SAMPLER of its own" in treatment.note


def test_samplers_are_combined():
    one = suggested("Some objects take most samples", experiment_of("IoUBalancedSampler"))[0]
    positives = one["instance_balanced_positives"]
    assert positives.yaml == "MODEL.BALANCED.SAMPLER.POSITIVES instance_balanced" and positives.in_place_of == ()
    negatives = suggested("Easy negatives", experiment_of("InstanceBalancedSampler"))[0]["iou_balanced_negatives"]
    assert negatives.yaml.endswith(" MODEL.BALANCED.SAMPLER.POSITIVES instance_balanced")
    assert negatives.fragment and negatives.in_place_of == ()
    negatives = suggested("Easy negatives", experiment_of("HardRatioSampler"))[0]["iou_balanced_negatives"]
    assert negatives.fragment == "", "its positives are others"
    assert negatives.in_place_of == ()


HARD_RATIO = {"MODEL__BALANCED__SAMPLER": "{NAME: IoUBalancedSampler, POSITIVES: hard_ratio}"}


@pytest.mark.parametrize("title, treatment, on, settings, gone", [
    ("Good boxes hardly train", "dynamic_smooth_l1", "BalancedL1", {}, "BalancedL1"),
    ("Good boxes hardly train", "balanced_l1", "DynamicSmoothL1", {}, "DynamicSmoothL1"),
    ("Few positives that fit well", "loops", "CascadeStages", {}, "CascadeStages"),
    ("Some objects take most samples", "instance_balanced_positives", "HardRatioSampler", {}, "HardRatioSampler"),
    ("Some objects take most samples", "instance_balanced_positives", "CascadeStages", HARD_RATIO, "HardRatioSampler"),
])  # fmt: skip
def test_what_is_replaced_is_said(title, treatment, on, settings, gone):
    assert suggested(title, experiment_of(on, **settings))[0][treatment].in_place_of == (gone,)
    assert suggested(title, experiment_of())[0][treatment].in_place_of == ()


def test_a_component_of_another_package_is_replaced_too(monkeypatch):
    class OwnSampler(RandomSampler):
        pass

    class Meticulous(BalancedL1):
        def __init__(self):
            super().__init__()
            assert torch.ones(1).item() == 1  # which only a device with memory can do

    monkeypatch.setitem(PROPOSAL_SAMPLER_REGISTRY._obj_map, "OwnSampler", OwnSampler)
    monkeypatch.setitem(BOX_LOSS_REGISTRY._obj_map, "Meticulous", Meticulous)
    experiment = experiment_of(MODEL__BALANCED__SAMPLER__NAME="OwnSampler")
    assert suggested("Easy negatives", experiment)[0]["iou_balanced_negatives"].in_place_of == ("OwnSampler",)
    experiment = experiment_of(MODEL__BALANCED__BOX_LOSS__NAME="Meticulous")
    assert suggested("Easy negatives", experiment)[0]["iou_balanced_negatives"].in_place_of == (), "cannot be told"


def test_without_a_config_nothing_is_known_to_be_refused():
    run = CASES["Good boxes hardly train"][0]._replace(components=frozenset({"IoUBranch"}))
    found = finding("Good boxes hardly train", run)
    assert [each.name for each in found.treatments] == [TREATMENTS[k].name for k in ("dynamic_smooth_l1", "balanced_l1")]
    assert found.refused == {} and all(each.yaml and each.lazy for each in found.treatments)


def test_the_page_says_what_is_replaced_and_what_is_refused(tmp_path):
    run = CASES["Regression makes good boxes worse"][0]
    pages = []
    for experiment in (
        experiment_of("IoUBranch", "CascadeStages"),
        experiment_of("BalancedL1", "two branches"),
        lazy_experiment(),
    ):
        on = run._replace(components=frozenset(in_use(experiment)))
        write_page(on, judge(on, experiment), {}, [], str(tmp_path / "page.html"))
        pages.append(html.unescape((tmp_path / "page.html").read_text(encoding="utf-8")))
    assert "refused: dynamic SmoothL1 (Dynamic R-CNN). box_loss (MODEL.BALANCED.BOX_LOSS) DynamicSmoothL1" in pages[0]
    assert "dynamic SmoothL1 (Dynamic R-CNN), in place of BalancedL1:" in pages[1]
    assert "for the first branch" in pages[1] and "for the first branch" not in pages[0]
    command = "<code>d2_balanced train --config-file CONFIG --output-dir"
    assert f"{command} ./output_DynamicSmoothL1 MODEL.BALANCED.BOX_LOSS.NAME DynamicSmoothL1</code>" in pages[1]
    assert "in place of the settings at its end, <code>--add DynamicRCNN/dynamic_smooth_l1</code>" in pages[1]
    assert command in pages[2] and "DynamicSmoothL1 model.roi_heads.box_predictor.box_loss._target_=" in pages[2]


@pytest.mark.parametrize("system", ["yaml", "py"])
def test_the_suggested_command_is_one(system, tmp_path, monkeypatch):
    """What the report says is taken by the command line, and trains with the component."""
    monkeypatch.chdir(tmp_path)
    experiment = open_experiment(quick_config("faster_rcnn", system))
    experiment.set_run(output_dir="my runs", device="cpu")
    os.mkdir("my runs")
    experiment.save_config(os.path.join("my runs", "config.yaml"))
    for name in ("dynamic_labels", "parallel_branches"):
        treatment = beside(TREATMENTS[name], frozenset(in_use(experiment)), experiment)
        program, train, *words = shlex.split(treatment.command)
        assert (program, train) == ("d2_balanced", "train")
        changed = load_experiment(argument_parser().parse_args(words))
        assert treatment.component in in_use(changed)
        assert changed.settings.output_dir == f"my runs_{treatment.component}"


SEATS = ("matcher", "RoI sampler", "stages", "branches", "IoU branch", "box loss", "gradients", "other heads")
SEEN = [choice for seat in SEATS for choice in choices.SEATS[seat]]
SEEN += [choice for choice in choices.all_choices() if choice.name in ("PISA", "SeesawLoss")]
DEFAULTS = {"RandomSampler", "CrossEntropy", "SmoothL1", "SingleStage", "FixedMatcher", "FirstStageMasks"}
DEFAULTS |= {"SampleWeights"}


def test_components_of_every_kind_are_seen():
    """Every choice that names a component of a two-stage detector; of the RPN's, the name says so."""
    for seat, of_seat in choices.SEATS.items():
        for choice in of_seat if seat not in ("detector", "backbone", "pyramid") else ():
            for key, name in choice.settings.items():
                if key.startswith("MODEL.BALANCED.") and key.endswith(".NAME"):
                    shown = f"{name} (RPN)" if ".RPN." in key else name
                    assert shown in in_use(experiment_of(choice.name)), choice.name


def test_components_that_nobody_has_registered_are_seen():
    class Own(torch.nn.Module):
        def forward(self, logits, labels):
            return logits.sum(dim=1)

    class Weights(SampleWeights):
        pass

    model = experiment_of().build_model()
    model.roi_heads.box_predictor.cls_loss, model.roi_heads.sample_weights = Own(), Weights()
    assert {"Own", "Weights"} <= components_of(model)


def built(cfg):
    """``(components in use, "")`` of the model that a config makes, or ``(None, why it is refused)``."""
    try:
        return in_use(YacsExperiment(cfg)), ""
    except ValueError as error:
        return None, str(error)


def outcomes_of(treatment, cfg):
    """What ``built`` says of every way to switch a treatment on in yaml."""
    ways = [shlex.split(treatment.yaml)] if treatment.yaml else []
    if treatment.fragment:
        files = read_with_bases(shipped_file(treatment.fragment))
        ways.append([word for _, settings in files for pair in flatten(settings).items() for word in pair])
    configs = [cfg.clone() for _ in ways]
    for changed, words in zip(configs, ways):
        merge_overrides(changed, words)
    return [built(changed) for k, changed in enumerate(configs) if changed not in configs[:k]]


@pytest.mark.parametrize("choice", SEEN, ids=lambda choice: choice.name)
def test_what_is_suggested_beside_a_component_is_built_and_says_what_it_switches_off(choice):
    experiment = experiment_of(choice.name)
    components = frozenset(in_use(experiment))
    tried = {name: beside(treatment, components, experiment) for name, treatment in TREATMENTS.items()}
    for name, treatment in tried.items():
        for after, refusal in outcomes_of(treatment, experiment.cfg):
            assert bool(refusal) == bool(treatment.refusal), (name, refusal, treatment.refusal)
            if not refusal:
                assert treatment.component in after or not treatment.component
                assert components - after - DEFAULTS == set(treatment.in_place_of), name


@pytest.mark.parametrize("loss", ["BalancedL1", "DynamicSmoothL1"])
def test_a_box_loss_in_every_stage_of_a_lazy_cascade(loss):
    to_try, _ = suggested("Good boxes hardly train", lazy_experiment(model="cascade_rcnn"))
    (treatment,) = [each for each in to_try.values() if each.component == loss]
    model = load_lazy(quick_config("cascade_rcnn", "py"), treatment.lazy.split()).model
    assert [type(instantiate(each.box_loss)).__name__ for each in model.roi_heads.box_predictor] == [loss] * 3


@pytest.mark.parametrize("on, title, positives", [
    ("IoUBalancedSampler", "Some objects take most samples", "instance_balanced"),
    ("InstanceBalancedSampler", "Easy negatives", "instance_balanced"),
    ("HardRatioSampler", "Easy negatives", "hard_ratio"),
])  # fmt: skip
def test_samplers_are_combined_in_lazy_config(on, title, positives):
    words = [f"model.roi_heads.proposal_sampler._target_={on}"]
    (treatment,) = suggested(title, lazy_experiment(*words))[0].values()
    heads = load_lazy(quick_config("faster_rcnn", "py"), words + treatment.lazy.split()).model.roi_heads
    sampler = instantiate(heads.proposal_sampler)
    assert type(sampler).__name__ == "IoUBalancedSampler" and sampler.positives == positives


LAZY_LOSS = "model.roi_heads.box_predictor.box_loss"


@pytest.mark.parametrize("words, title, refused", [
    (["model.roi_heads.box_predictor.box_loss._target_=BalancedL1"], "Few positives that fit well", ["generated_boxes"]),
    (["model.roi_heads.box_predictor.box_loss._target_=BalancedL1"], "Good boxes hardly train", []),
    (["model.roi_heads.train_on_pred_boxes=true"], "Few positives that fit well", ["loops"]),
    (["model.roi_heads.proposal_matcher.thresholds=[0.3,0.5]", "model.roi_heads.proposal_matcher.labels=[0,-1,1]"],
     "Loose boxes", []),
    ([], "AP falls with the number of objects", []),
])  # fmt: skip
def test_the_functions_and_overrides_of_a_lazy_config_are_tried(words, title, refused):
    to_try, not_to_try = suggested(title, lazy_experiment(*words))
    assert list(not_to_try) == refused
    wanted = next(rule.treatments for rule in RULES if rule.title == title)
    assert {*to_try, *refused} == {name for name in wanted if not (words and "BalancedL1" in words[0]) or name != "balanced_l1"}
    assert all(not each.yaml and each.command for each in to_try.values())


def test_a_fragment_that_does_not_fit_the_model_is_no_suggestion():
    experiment = lazy_experiment(model="cascade_rcnn")
    treatment = TREATMENTS["loops"]._replace(combined={})
    assert "loops.yaml does not fit this config" in beside(treatment, frozenset({"CascadeStages"}), experiment).refusal
    treatment = beside(TREATMENTS["loops"], frozenset({"CascadeStages"}), experiment)
    assert treatment.refusal == treatment.command == "" and "takes a model with one head" in treatment.note


@pytest.mark.parametrize("iterations, ap50, told", [
    (8, 40.0, "8 iterations, and 100 are needed"), (500, 0.0, "AP50 on val is 0.0, and 10 is needed"),
    (1, 40.0, "1 iteration, and"),
])
def test_a_detector_that_has_hardly_trained_is_not_judged(iterations, ap50, told):
    evaluations = {"val": {"metrics": {"bbox": {"AP50": ap50, "AP90": 0.0}}}}
    run = data(fields(), evaluations=evaluations)._replace(iterations=iterations)
    found = {f.title: f for f in judge(run)}
    assert found["Loose boxes"].kind == "unknown" and told in found["Loose boxes"].text
    assert all(f.kind == "unknown" for f in found.values() if f.title != "Rare classes")
    assert told not in found["Rare classes"].text, "it looks at the data"
