"""Proposal files: read by detectron2, read safely, and compared with their data set."""

import pickle

import numpy as np
import pytest
from commands import refusal
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from d2_balanced.data.proposal_files import check_proposals, is_missing, main, read_proposals, write_proposals
from d2_balanced.utils.errors import DataError

RECORDS = [{"image_id": k, "file_name": f"{k}.jpg", "width": 60, "height": 40} for k in (3, 4)]
BOXES = [np.array([[1, 2, 30, 20.5], [0, 0, 60, 40]], dtype=np.float32), np.zeros((0, 4), dtype=np.float32)]
LOGITS = [np.array([0.5, 2.5], dtype=np.float32), np.zeros(0, dtype=np.float32)]


@pytest.fixture
def path(tmp_path):
    write_proposals(str(tmp_path / "p.pkl"), [3, 4], BOXES, LOGITS)
    return str(tmp_path / "p.pkl")


def test_detectron2_reads_what_is_written(path):
    first, second = load_proposals_into_dataset([dict(r) for r in RECORDS], path)
    np.testing.assert_array_equal(first["proposal_boxes"], BOXES[0][::-1])  # by falling score
    assert first["proposal_bbox_mode"] == BoxMode.XYXY_ABS and len(second["proposal_boxes"]) == 0
    found = read_proposals(path)
    np.testing.assert_array_equal(found["3"][0], BOXES[0])
    np.testing.assert_array_equal(found["3"][1], LOGITS[0])


def test_other_box_modes_and_old_names(tmp_path):
    content = {"indexes": [3], "boxes": [[[1, 2, 29, 18]]], "scores": [[1.0]], "bbox_mode": int(BoxMode.XYWH_ABS)}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content, protocol=2))
    assert read_proposals(str(tmp_path / "p.pkl"))["3"][0].tolist() == [[1, 2, 30, 20]]


def test_what_detectron2_would_fetch_is_fetched(path, tmp_path):
    class Shelf(PathHandler):
        def _get_supported_prefixes(self):
            return ["shelf://"]

        def _open(self, name, mode="r", **options):
            return open(tmp_path / name[len("shelf://") :], mode)

    PathManager.register_handler(Shelf(), allow_override=True)
    np.testing.assert_array_equal(read_proposals("shelf://p.pkl")["3"][0], BOXES[0])
    assert not is_missing("shelf://p.pkl") and not is_missing(path) and is_missing(path + "x")


def test_a_sound_file(path):
    report = check_proposals(path, RECORDS)
    assert report.errors == [] and report.summary["proposals_an_image"] == {"min": 0, "mean": 1.0, "max": 2}


@pytest.mark.parametrize("boxes, text", [
    ([[1, 2, np.nan, 5]], "broken boxes"), ([[9, 2, 3, 5]], "broken boxes"), ([[9, 2, 90, 5]], "outside of the image"),
])
def test_faults(tmp_path, boxes, text):
    write_proposals(str(tmp_path / "p.pkl"), [3, 4], [boxes, []], [[1.0], []])
    error, = check_proposals(str(tmp_path / "p.pkl"), RECORDS).errors
    assert text in error and "image 3 (3.jpg)" in error


def test_an_image_without_entry(path):
    error, = check_proposals(path, RECORDS + [{**RECORDS[0], "image_id": 5}]).errors
    assert "1 of 3 image(s) have no entry: image 5" in error


def test_writing_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="image 4 has 0 boxes and 1 logits"):
        write_proposals(str(tmp_path / "p.pkl"), [3, 4], BOXES, [LOGITS[0], [1.0]])
    with pytest.raises(ValueError, match="3 image ids, 2 boxes"):
        write_proposals(str(tmp_path / "p.pkl"), [3, 4, 5], BOXES, LOGITS)


class Exploit:
    def __reduce__(self):
        return exec, ("raise AssertionError('code of the file was run')",)


@pytest.mark.parametrize("content", [pickle.dumps({"ids": Exploit()}), b"", b"\x80\x04", pickle.dumps([1, 2]),
                                     pickle.dumps({"ids": [1]})])
def test_unreadable_files(tmp_path, content):
    (tmp_path / "p.pkl").write_bytes(content)
    with pytest.raises(DataError, match="p.pkl is no readable proposal file"):
        read_proposals(str(tmp_path / "p.pkl"))


def test_command(tmp_path):
    assert "no registered data set" in refusal(main, tmp_path / "none.pkl", "--name", "no_such_data")
