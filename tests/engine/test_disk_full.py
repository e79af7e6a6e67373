"""No room for a file: the file, the space and what is safe are said, and nothing half-written stays."""

import os
import resource

import pytest
import torch
from d2_balanced.engine.checkpoint import BalancedCheckpointer
from d2_balanced.engine.checkpoint_files import read_checkpoint
from d2_balanced.utils.atomic import atomic_write
from d2_balanced.utils.errors import OutputError


@pytest.fixture()
def no_file_above():
    """no_file_above(bytes): the system refuses to write more than that into one file; the closest to a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_finds_no_room(tmp_path, no_file_above):
    model = torch.nn.Linear(1000, 1000)  # 4 MB
    checkpointer = BalancedCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000003", iteration=3)
    no_file_above(2**20)
    message = "model_0000005.pth could not be written: .*needs about 3.8 MB, and .* MB are free.*_0000003.pth is whole"
    with pytest.raises(OutputError, match=message):
        checkpointer.save("model_0000005", iteration=5)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000003.pth"]
    assert read_checkpoint(checkpointer.get_checkpoint_file())["iteration"] == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("mode, content", [("w", "x" * 100_000), ("w", "x"), ("wb", b"x")])
def test_a_full_disk(mode, content, tmp_path):
    (tmp_path / "config.yaml").write_text("old")
    os.symlink("/dev/full", tmp_path / ".config.yaml.unfinished")
    with pytest.raises(OutputError, match=r"config.yaml could not be written: the disk is full .*; .* MB are free"):
        with atomic_write(str(tmp_path / "config.yaml"), mode) as file:
            file.write(content)
    assert os.listdir(tmp_path) == ["config.yaml"] and (tmp_path / "config.yaml").read_text() == "old"


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_write(str(tmp_path / "a"), "w") as file:
        file.write("half")
        raise ZeroDivisionError
    with pytest.raises(OutputError, match="none/a could not be written: No such file"):
        with atomic_write(str(tmp_path / "none" / "a")):
            pass
    with pytest.raises(FileNotFoundError), atomic_write(str(tmp_path / "b")):
        open(tmp_path / "c")
    assert os.listdir(tmp_path) == []
