"""Videos: each frame's objects with its number and time, a copy with what was found, and files that are none."""

import csv
import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from blob_detector import Blobs, Mapper, picture
from d2_balanced.inference import Predictor
from d2_balanced.inference.find_in_files import FindInFiles, Wanted
from d2_balanced.inference.images import find_images
from d2_balanced.inference.output import PredictionFolder
from d2_balanced.inference.video import Frame, VideoReader, VideoWriter, is_video
from d2_balanced.utils.errors import DataError, InstallError, OutputError

av = pytest.importorskip("av", reason="PyAV is an extra: pip install 'd2_balanced[video]'")

RECTANGLES = [(8 * k, 10, 8 * k + 16, 26) for k in range(6)]  # it moves to the right, in frame after frame


def film(path, rectangles=RECTANGLES, size=(48, 64), times=None, turn=0):
    with VideoWriter(str(path), Fraction(25)) as video:
        for number, rectangle in enumerate(rectangles):
            time = number / 25 if times is None else times[number]
            video.write(Frame(number, time, picture([rectangle], size)))
    return str(path)


def found_in(folder, paths, **wanted):
    """What the files and the folder have after these paths, and the pass itself."""
    output = PredictionFolder(str(folder), paths)
    find = FindInFiles(Predictor(Blobs(), Mapper(), ["blob"]), output, Wanted(**wanted))
    with output.writing():
        find.in_images([path for path in paths if not is_video(path)])
        for path in filter(is_video, paths):
            find.in_video(path)
    found = json.loads((folder / "predictions.json").read_text())
    with open(folder / "predictions.csv", newline="") as file:
        return found, list(csv.DictReader(file)), find


def frames(path):
    with VideoReader(str(path)) as video:
        return list(video)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_frame_has_its_objects_number_and_time(tmp_path, batch_size):
    path = film(tmp_path / "a.mp4")
    found, rows, find = found_in(tmp_path / "out", [path], batch_size=batch_size)
    assert [item["frame"] for item in found] == [int(row["frame"]) for row in rows] == list(range(6))
    assert [item["time"] for item in found] == pytest.approx([k / 25 for k in range(6)])
    assert {item["file_name"] for item in found} == {path} and {item["image_id"] for item in found} == {1}
    for item, (x1, y1, x2, y2) in zip(found, RECTANGLES):
        assert item["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1)  # H.264 loses sharpness
    assert find.frames == find.objects == 6 and not find.faults
    copy = frames(tmp_path / "out" / "videos" / "a.mp4")
    assert [frame.time for frame in copy] == pytest.approx([k / 25 for k in range(6)], abs=1e-3)
    for before, after in zip(frames(path), copy):
        assert after.pixels.shape == (48, 64, 3)
        assert abs(after.pixels.astype(int) - before.pixels).max() > 60  # the box and its name


def test_frames_keep_their_own_times_and_odd_sizes_are_padded(tmp_path):
    times = [0.0, 0.1, 0.15, 0.7]
    path = film(tmp_path / "a.mp4", RECTANGLES[:4], (47, 63), times)
    assert [frame.time for frame in frames(path)] == pytest.approx(times, abs=1e-3)
    found_in(tmp_path / "out", [path])
    copy = frames(tmp_path / "out" / "videos" / "a.mp4")
    assert [frame.time for frame in copy] == pytest.approx(times, abs=1e-3)
    assert {frame.pixels.shape for frame in copy} == {(48, 64, 3)}


def test_times_that_repeat_are_no_obstacle(tmp_path):
    copy = frames(film(tmp_path / "a.mp4", RECTANGLES[:4], times=[0.0, 0.2, 0.2, 0.1]))
    assert len(copy) == 4 and [frame.time for frame in copy] == pytest.approx([0.0, 0.2, 0.2, 0.2], abs=1e-3)


def test_a_video_that_lies_on_its_side_is_turned(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a video that is to be turned")
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)  # counterclockwise
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture([(40, 4, 60, 14)], (48, 64)), format="rgb24")))
        container.mux(stream.encode())
    (frame,) = frames(tmp_path / "a.mp4")
    rows, columns = np.nonzero(frame.pixels[..., 0] > 128)
    assert frame.pixels.shape == (64, 48, 3)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == pytest.approx((4, 24, 4, 14), abs=1)


def test_what_is_no_video_is_told_and_the_others_are_done(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    paths = [str(tmp_path / "broken.mp4"), str(tmp_path / "sound.mp4"), film(tmp_path / "good.mp4")]
    found, _, find = found_in(tmp_path / "out", paths)
    assert {item["file_name"] for item in found} == {paths[2]} and {item["image_id"] for item in found} == {3}
    assert len(find.faults) == 2 and "broken.mp4" in find.faults[0] and "sound.mp4 has no pictures" in find.faults[1]
    for path in paths[:2]:
        with pytest.raises(DataError, match=path):
            VideoReader(path)


def test_a_video_that_ends_in_an_error_keeps_what_was_found_before_it(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    whole = VideoReader.__iter__

    def breaks(self):
        for frame in whole(self):
            if frame.number == 3:
                raise DataError(f"video {path} cannot be read after 3 frame(s)")
            yield frame

    monkeypatch.setattr(VideoReader, "__iter__", breaks)
    found, _, find = found_in(tmp_path / "out", [path], batch_size=2)
    monkeypatch.undo()
    assert [item["frame"] for item in found] == [0, 1, 2] and len(find.faults) == 1
    assert len(frames(tmp_path / "out" / "videos" / "a.mp4")) == 3


def test_a_pass_that_is_interrupted_leaves_files_that_can_be_read(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    write = VideoWriter.write

    def interrupted(self, frame):
        if frame.number == 4:
            raise KeyboardInterrupt
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found_in(tmp_path / "out", [path])
    assert [item["frame"] for item in json.loads((tmp_path / "out" / "predictions.json").read_text())] == list(range(5))
    assert len(frames(tmp_path / "out" / "videos" / "a.mp4")) == 4
    assert not list((tmp_path / "out").rglob("*.unfinished"))


def test_images_and_videos_together(tmp_path):
    from PIL import Image

    Image.fromarray(picture(RECTANGLES[:1], (48, 64))).save(tmp_path / "a.png")
    paths = [film(tmp_path / "a.mp4", RECTANGLES[:2]), str(tmp_path / "a.png")]
    found, rows, _ = found_in(tmp_path / "out", paths)
    assert [(item["image_id"], item.get("frame")) for item in found] == [(2, None), (1, 0), (1, 1)]
    assert [row["frame"] for row in rows] == ["", "0", "1"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("a.*")) == ["a.jpg", "a.mp4"]
    with pytest.raises(OutputError, match="holds predictions"):
        PredictionFolder(str(tmp_path / "out"), paths)
    with pytest.raises(OutputError, match="would replace"):
        PredictionFolder(str(tmp_path / "out"), [str(tmp_path / "out" / "videos" / "a.mp4")], overwrite=True)


def test_videos_are_named_or_fit_a_pattern(tmp_path):
    for name in ("a.mp4", "b.MOV", "c.png"):
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)]) == [str(tmp_path / "c.png")]
    assert find_images([str(tmp_path / "*")]) == [str(tmp_path / name) for name in ("a.mp4", "b.MOV", "c.png")]
    assert find_images([str(tmp_path / "b.MOV")]) == [str(tmp_path / "b.MOV")]


def test_without_pyav_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InstallError, match=r"pip install 'd2_balanced\[video\]'"):
        VideoReader(path)
