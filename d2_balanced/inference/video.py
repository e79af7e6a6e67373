"""Videos, frame by frame, with PyAV: read, and written as MP4 without sound."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from typing import Any, Iterator, NamedTuple

import numpy as np

from ..utils.errors import DataError, InstallError, OutputError, usage
from ..utils.extras import import_extra

__all__ = ["VIDEO_ENDINGS", "Frame", "VideoReader", "VideoWriter", "is_video", "require_pyav"]

VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
_CODEC, _TICK = "libx264", Fraction(1, 90_000)  # of a second


def is_video(path: str) -> bool:
    """Whether the name of a file says that it is a video."""
    return path.lower().endswith(VIDEO_ENDINGS)


def require_pyav() -> Any:
    """PyAV; raises ``InstallError`` where it is not installed."""
    return import_extra("av", "video")


class Frame(NamedTuple):
    """``number``: from 0; ``time``: in seconds; ``pixels``: RGB (H, W, 3) of uint8, upright."""

    number: int
    time: float
    pixels: np.ndarray


class VideoReader:
    """A context with the frames of a video's first stream of pictures, one at a time.

    Attributes:
        rate: frames a second, a ``Fraction``.
        num_frames: as the file says it, 0 where it does not.

    Raises ``DataError`` for a file that is no video, or has no pictures; ``InstallError`` without PyAV.
    """

    def __init__(self, path: str):
        av = require_pyav()
        self._path = path
        self._errors = (av.error.FFmpegError, OSError)
        with usage(f"video {path} cannot be read", *self._errors, error=DataError):
            self._container = av.open(path)
        if not self._container.streams.video:
            self._container.close()
            raise DataError(f"video {path} has no pictures.")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or self._stream.guessed_rate or 25
        self.num_frames = self._stream.frames

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error):
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Raises ``DataError`` where a frame cannot be read; those before it have been given."""
        frames = self._container.decode(self._stream)
        for number in itertools.count():
            try:
                frame = next(frames, None)
            except self._errors as error:
                raise DataError(f"video {self._path} cannot be read after {number} frame(s): {error}") from error
            if frame is None:
                break
            yield Frame(number, float(number / self.rate) if frame.time is None else frame.time, _upright(frame))
        if number == 0:
            raise DataError(f"video {self._path} has no frame.")


def _upright(frame) -> np.ndarray:
    """The pixels, turned as the file says that they are to be shown (telephones)."""
    turns = round(getattr(frame, "rotation", 0) / 90)  # counterclockwise
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


class VideoWriter:
    """A context that writes an MP4 of H.264; the file has its name when the context ends, be it by an error.

    Args:
        rate: frames a second, a ``Fraction``; each frame keeps its own time all the same, unless that is no later than
            the one before.

    Raises ``OutputError`` where it cannot be written, ``InstallError`` where PyAV is missing or has no encoder.
    """

    def __init__(self, path: str, rate):
        self._av = require_pyav()
        self._path, self._rate = path, rate
        folder, name = os.path.split(path)
        self._unfinished = os.path.join(folder, f".{name}.unfinished")
        self._errors = (self._av.error.FFmpegError, OSError)
        self._container = self._stream = None
        self._last = -(2**62)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: Frame) -> None:
        """Add a frame; all have the size of the first."""
        with usage(f"{self._path} cannot be written", *self._errors, error=OutputError):
            pixels = _even(frame.pixels)
            if self._container is None:
                self._open(*pixels.shape[:2])
            picture = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.time_base = self._stream.codec_context.time_base
            self._last = max(round(frame.time / picture.time_base), self._last + 1)  # damaged files repeat a time
            picture.pts = self._last
            self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        av = self._av
        os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        self._container = av.open(self._unfinished, "w", format="mp4")
        try:
            self._stream = self._container.add_stream(_CODEC, rate=self._rate)
        except av.codec.codec.UnknownCodecError as error:
            raise InstallError(f"This PyAV has no encoder {_CODEC}: pip install --force-reinstall av") from error
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = _TICK

    def __exit__(self, *error):
        if self._container is None:
            return
        with usage(f"{self._path} cannot be written", *self._errors, error=OutputError):
            if self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
            os.replace(self._unfinished, self._path)


def _even(pixels: np.ndarray) -> np.ndarray:
    """Pixels with an even height and width, which H.264's usual form needs: the last row or column twice."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
