"""What a checkpoint holds, how it comes back, and what happens when it is damaged or does not fit."""

import argparse
import collections
import logging
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.modeling.backbone.resnet import BasicStem
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2_balanced.utils.errors import CheckpointError
from d2_balanced.engine.checkpoint import BalancedCheckpointer
from d2_balanced.engine.checkpoint_files import UnreadableCheckpointError


class Counter:
    """A checkpointable with a state of our choice."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return {"state": self.state}

    def load_state_dict(self, saved):
        self.state = saved["state"]


def small_model(classes=3, width=4, body="body"):
    torch.manual_seed(0)
    layers = [(body, nn.Conv2d(3, width, 3)), ("norm", nn.BatchNorm2d(width)), ("cls_score", nn.Linear(width, classes))]
    return nn.Sequential(collections.OrderedDict(layers))


def randomised(model):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 100)
    return model


def assert_same_weights(first, second):
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def damage(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)


def test_model_states_and_extras_come_back(tmp_path):
    model = randomised(small_model())
    state = {"list": [1, 2.5, None, "x"], "tuple": (True, -(2**70)), 7: torch.arange(3), "nested": {"a": {}}}
    BalancedCheckpointer(model, str(tmp_path), counter=Counter(state)).save("model_0000009", iteration=9)

    fresh, counter = small_model(), Counter(None)
    extra = BalancedCheckpointer(fresh, str(tmp_path), counter=counter).resume_or_load("unused.pth", resume=True)
    assert_same_weights(model, fresh)
    assert extra == {"iteration": 9}
    assert torch.equal(counter.state.pop(7), torch.arange(3))
    assert counter.state == {key: value for key, value in state.items() if key != 7}


def test_file_holds_tensors_and_plain_python_only(tmp_path):
    point = collections.namedtuple("point", "x y")
    state = {
        "number": np.float64(0.5), "flag": np.bool_(True), "array": np.arange(3), "point": point(1, np.int64(2)),
        "defaults": collections.defaultdict(list, a=[1]), "parameter": nn.Parameter(torch.ones(2)),
        "version": torch.__version__,
    }  # fmt: skip
    BalancedCheckpointer(small_model(), str(tmp_path), counter=Counter(state)).save("model_final")
    saved = torch.load(str(tmp_path / "model_final.pth"), weights_only=True)["counter"]["state"]
    assert saved["number"] == 0.5 and type(saved["number"]) is float
    assert saved["flag"] is True and saved["point"] == (1, 2) and type(saved["point"]) is tuple
    assert torch.equal(saved["array"], torch.arange(3))
    assert type(saved["defaults"]) is dict and saved["defaults"] == {"a": [1]}
    assert type(saved["parameter"]) is torch.Tensor and type(saved["version"]) is str


@pytest.mark.parametrize("value", [{1, 2}, object(), np.array(["text"]), b"bytes", slice(3)])
def test_other_state_is_refused_before_training_and_leaves_no_file(tmp_path, value):
    checkpointer = BalancedCheckpointer(small_model(), str(tmp_path), counter=Counter({"a": [0, value]}))
    for action in (checkpointer.check_before_training, lambda: checkpointer.save("model_final")):
        with pytest.raises(TypeError, match=r"counter\['state'\]\['a'\]\[1\] is a \w+, which a checkpoint cannot hold"):
            action()
    assert os.listdir(tmp_path) == []


def test_optimizer_and_scheduler_states_can_be_saved_as_they_are(tmp_path):
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    model.body(torch.rand(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    BalancedCheckpointer(model, str(tmp_path), optimizer=optimizer, scheduler=scheduler).save("model_final")

    other = torch.optim.AdamW(small_model().parameters())
    other_scheduler = torch.optim.lr_scheduler.MultiStepLR(other, [9])
    BalancedCheckpointer(small_model(), str(tmp_path), optimizer=other, scheduler=other_scheduler).resume_or_load("")
    assert str(other.state_dict()) == str(optimizer.state_dict())
    assert dict(other_scheduler.state_dict()) == dict(scheduler.state_dict())


def test_last_checkpoint_is_never_the_best_one(tmp_path):
    checkpointer = BalancedCheckpointer(small_model(), str(tmp_path))
    checkpointer.save("model_best")
    assert not (tmp_path / "last_checkpoint").exists()
    checkpointer.save("model_0000004")
    checkpointer.save("model_best")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000004.pth")


def test_max_to_keep_spares_the_newest_final_best_and_later_numbers(tmp_path):
    for iteration in (3, 5, 8, 99):
        BalancedCheckpointer(small_model(), str(tmp_path)).save(f"model_{iteration:07d}")
    # A new object, as after a resume at iteration 5: what other runs of this folder left must count too.
    checkpointer = BalancedCheckpointer(small_model(), str(tmp_path), max_to_keep=2)
    for name in ("model_best", "model_0000009", "model_final"):
        checkpointer.save(name)
    names = {name for name in os.listdir(tmp_path) if name.endswith(".pth")}
    assert names == {"model_0000008.pth", "model_0000009.pth", "model_0000099.pth", "model_best.pth", "model_final.pth"}


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    old, new = randomised(small_model()), randomised(small_model())
    BalancedCheckpointer(old, str(tmp_path)).save("model_0000004", iteration=4)
    BalancedCheckpointer(new, str(tmp_path)).save("model_0000009", iteration=9)
    os.utime(tmp_path / "model_0000004.pth", (1, 1))
    damage(tmp_path / "model_0000009.pth")
    model = small_model()
    with caplog.at_level(logging.WARNING):
        assert BalancedCheckpointer(model, str(tmp_path)).resume_or_load("")["iteration"] == 4
    assert_same_weights(old, model)
    assert "model_0000009.pth' cannot be read" in caplog.text and "trying the checkpoint before it" in caplog.text

    damage(tmp_path / "model_0000004.pth")
    with pytest.raises(UnreadableCheckpointError, match="can be resumed from.*model_0000009.*model_0000004"):
        BalancedCheckpointer(model, str(tmp_path)).resume_or_load("")


@pytest.mark.parametrize("tag", [None, "", "model_0000042.pth"])
def test_lost_empty_or_wrong_tag_still_resumes(tmp_path, tag):
    BalancedCheckpointer(small_model(), str(tmp_path)).save("model_0000009", iteration=9)
    os.remove(tmp_path / "last_checkpoint")
    if tag is not None:
        (tmp_path / "last_checkpoint").write_text(tag)
    assert BalancedCheckpointer(small_model(), str(tmp_path)).resume_or_load("")["iteration"] == 9


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpointer = BalancedCheckpointer(small_model(), str(tmp_path))
    checkpointer.save("model_final", iteration=1)

    def disk_full(data, file):
        file.write(b"half a check")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model_final", iteration=2)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_final.pth"]
    assert BalancedCheckpointer(small_model(), str(tmp_path)).resume_or_load("")["iteration"] == 1


def test_what_killed_runs_left_is_deleted(tmp_path):
    checkpointer = BalancedCheckpointer(small_model(), str(tmp_path / "run"))
    checkpointer.check_before_training()  # no folder yet
    checkpointer.save("model_final")
    (tmp_path / "run" / ".model_best.pth.unfinished").write_text("half a check")
    checkpointer.check_before_training()
    assert sorted(os.listdir(tmp_path / "run")) == ["last_checkpoint", "model_final.pth"]


def test_nothing_is_written_where_saving_is_off(tmp_path):
    checkpointer = BalancedCheckpointer(small_model(), str(tmp_path / "x"), save_to_disk=False)
    checkpointer.check_before_training()
    checkpointer.save("model_final")
    assert not (tmp_path / "x").exists()


def test_ddp_wrapped_models_share_checkpoints_with_plain_ones(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = randomised(small_model())
        BalancedCheckpointer(DistributedDataParallel(model), str(tmp_path)).save("model_final")
        plain, wrapped = small_model(), small_model()
        BalancedCheckpointer(plain, str(tmp_path)).resume_or_load("")
        BalancedCheckpointer(DistributedDataParallel(wrapped), str(tmp_path)).resume_or_load("")
    finally:
        torch.distributed.destroy_process_group()
    assert_same_weights(model, plain)
    assert_same_weights(model, wrapped)


def test_without_resume_or_without_a_checkpoint_only_weights_are_loaded(tmp_path):
    weights = tmp_path / "weights"
    BalancedCheckpointer(randomised(small_model()), str(weights), counter=Counter(5)).save("model_final", iteration=7)
    for resume in (False, True):
        counter = Counter(0)
        checkpointer = BalancedCheckpointer(small_model(), str(tmp_path / "new"), counter=counter)
        checkpointer.resume_or_load(str(weights / "model_final.pth"), resume=resume)
        assert counter.state == 0
        assert BalancedCheckpointer(small_model(), str(tmp_path / "new")).resume_or_load("", resume=resume) == {}


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint '.*none.pth' not found; check MODEL.WEIGHTS"):
        BalancedCheckpointer(small_model()).load(str(tmp_path / "none.pth"))


def test_other_number_of_classes_loads_for_fine_tuning_and_is_reported(tmp_path, caplog):
    trained = randomised(small_model(classes=3))
    BalancedCheckpointer(trained, str(tmp_path)).save("model_final")
    file, model = str(tmp_path / "model_final.pth"), small_model(classes=5)
    before = model.cls_score.weight.clone()
    with caplog.at_level(logging.WARNING):
        BalancedCheckpointer(model).load(file, checkpointables=[])
    assert torch.equal(model.body.weight, trained.body.weight) and torch.equal(model.cls_score.weight, before)
    assert "4 of the model's 6 parameter tensors come from" in caplog.text
    assert "2 in another shape: cls_score.weight (file [3, 4], model [5, 4]), cls_score.bias" in caplog.text

    for strict_use in (lambda c: c.load(file), lambda c: c.resume_or_load("", resume=True)):
        with pytest.raises(CheckpointError, match=r"(?s)number of classes or configuration.*2 in another shape"):
            strict_use(BalancedCheckpointer(small_model(classes=5), str(tmp_path)))


def test_missing_and_unexpected_weights_are_listed_and_matter_where_all_are_needed(tmp_path):
    BalancedCheckpointer(small_model(body="stem"), str(tmp_path)).save("model_final")
    checkpointer = BalancedCheckpointer(small_model())
    checkpointer.load(str(tmp_path / "model_final.pth"), checkpointables=[])
    with pytest.raises(CheckpointError, match=r"(?s)2 not in the file: body.*2 in the file only: stem"):
        checkpointer.load(str(tmp_path / "model_final.pth"), checkpointables=[], strict=True)


def test_weights_that_do_not_fit_at_all_are_refused(tmp_path):
    torch.save({"a.weight": torch.ones(2), "b": torch.ones(1)}, str(tmp_path / "other.pth"))
    with pytest.raises(CheckpointError, match=r"(?s)another architecture: next to nothing fits.*0 of the model's 6"):
        BalancedCheckpointer(small_model()).load(str(tmp_path / "other.pth"), checkpointables=[])


def test_a_buffer_that_the_file_lacks_keeps_its_value_with_a_warning(tmp_path, caplog):
    BalancedCheckpointer(small_model(), str(tmp_path)).save("model_final")
    model = small_model()
    model.register_buffer("threshold", torch.tensor(0.4))
    with caplog.at_level(logging.WARNING):
        BalancedCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    assert "1 not in the file (buffers; they keep their initial value): threshold" in caplog.text
    assert model.threshold == torch.tensor(0.4)


def test_a_shared_head_loads_from_either_name(tmp_path):
    model = small_model()
    model.add_module("again", model.cls_score)
    weights = {k: v for k, v in randomised(model).state_dict().items() if not k.startswith("again")}
    torch.save({"model": weights}, str(tmp_path / "w.pth"))
    other = small_model()
    other.add_module("again", other.cls_score)
    BalancedCheckpointer(other).load(str(tmp_path / "w.pth"))
    assert_same_weights(model, other)


def model_zoo_pickle(path, model, author="model zoo", protocol=2):
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with open(path, "wb") as file:
        data = {"model": weights, "__author__": author, "matching_heuristics": True, "scale": np.float32(2)}
        pickle.dump(data, file, protocol=protocol)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_model_zoo_pickle_loads(tmp_path, protocol):
    model, fresh = randomised(small_model()), small_model()
    model_zoo_pickle(tmp_path / "zoo.pkl", model, protocol=protocol)
    BalancedCheckpointer(fresh).load(str(tmp_path / "zoo.pkl"))
    assert_same_weights(model, fresh)


def test_weights_of_detectron_are_matched_by_name(tmp_path):
    stem = BasicStem(norm="FrozenBN")
    arrays = {
        "conv1_w": np.random.RandomState(0).rand(64, 3, 7, 7).astype("float32"),
        "res_conv1_bn_s": np.full(64, 2, "float32"),
        "res_conv1_bn_b": np.full(64, 3, "float32"),
        "conv1_w_momentum": np.zeros(1, "float32"),
    }
    with open(tmp_path / "R-50.pkl", "wb") as file:
        pickle.dump({"blobs": arrays}, file, protocol=2)
    model = nn.Sequential(collections.OrderedDict(stem=stem))
    BalancedCheckpointer(model).load(str(tmp_path / "R-50.pkl"), checkpointables=[])
    assert np.array_equal(stem.conv1.weight.detach().numpy(), arrays["conv1_w"])
    assert (stem.conv1.norm.weight == 2).all() and (stem.conv1.norm.bias == 3).all()


class Exploit:
    """A pickle of this runs a command when it is loaded with pickle."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth", "weights.pyth"])
def test_a_file_that_would_run_code_is_refused(tmp_path, name):
    data = {"model": {"body.weight": Exploit(tmp_path / "proof")}, "__author__": "x"}
    if name.endswith(".pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(data))
    else:
        torch.save(data, str(tmp_path / name))
    with pytest.raises(UnreadableCheckpointError, match=r"weights.*cannot be read: it \w+ (for )?`posix.system`"):
        BalancedCheckpointer(small_model()).load(str(tmp_path / name))
    assert not (tmp_path / "proof").exists()


def pickled(content):
    return lambda path: path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("name, write, reason", [
    ("w.pth", lambda path: torch.save({"model": {}, "args": argparse.Namespace()}, path), "it holds `argparse.Namespace`"),
    ("w.pth", lambda path: torch.save(nn.Linear(1, 1), path), "it holds `torch.nn.modules.linear.Linear`"),
    ("w.pth", lambda path: path.touch(), "empty, damaged"),
    ("w.pth", lambda path: path.write_text("<!DOCTYPE html>"), "empty, damaged"),
    ("w.pth", pickled({"a": [1, 2]}), "not written by torch.save"),
    ("w.pth", lambda path: torch.save([1, 2], path), "is a list, not a dict of weights"),
    ("w.pth", lambda path: torch.save({"model": 3}, path), "is a int, not a dict of weights"),
    ("w.pth", lambda path: torch.save({"state_dict": {}, "epoch": 3}, path), "'state_dict' is a dict.*'epoch'"),
    ("w.pkl", pickled([1, 2]), "empty, damaged"),
    ("w.pyth", lambda path: torch.save({}, path), "empty, damaged"),
])  # fmt: skip
def test_a_file_without_weights_is_refused_and_nothing_unsafe_advised(name, write, reason, tmp_path):
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"checkpoint '{tmp_path / name}' .*{reason}") as error:
        BalancedCheckpointer(small_model()).load(str(tmp_path / name))
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


def test_the_refusal_of_a_pickle_names_what_it_asked_for(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {}, "__author__": Exploit("unused")}))
    with pytest.raises(UnreadableCheckpointError, match=r"`\w+.system`; only NumPy arrays, containers, strings"):
        BalancedCheckpointer(small_model()).load(str(tmp_path / "w.pkl"))
