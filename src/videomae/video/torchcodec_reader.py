"""Frames decoded by torchcodec, on processors or on the video unit of a GPU, with the promise of `VideoReader`.

torchcodec finds a frame by its time. Its exact mode is not exact for every file: it seeks to places from which H.264
with periodic refresh, MPEG-TS and AVI do not decode right, counts the hidden frames of some VP9 as frames, and does
not mirror. So it reads only what is known to be safe, every frame that it gives is compared with the frame index by
its time, and at the first difference PyAV reads the video, which costs time and changes no frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from videomae.video.decode import VideoReader
from videomae.video.decoders import torchcodec_decoders
from videomae.video.encoded import EncodedVideo
from videomae.video.index import FrameIndex
from videomae.video.index_store import IndexStore
from videomae.video.rgb import ByteArray, Orientation, RgbConverter, checked_size

# Containers that keep the time of every frame, as FFmpeg names them. In MPEG-TS and AVI torchcodec 0.13 seeks to
# other frames, or to none.
CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})

_CHUNK_BYTES = 64 << 20  # of frames that are asked for at once
_SAME_SECONDS = 1e-6  # what a time as float64 may be off


class _NotTheFrameError(Exception):
    """torchcodec reads the video otherwise than a full decode. Never leaves this file."""


class TorchcodecReader(VideoReader):
    """A video whose frames torchcodec decodes; whatever it may read wrong, PyAV does."""

    def __init__(
        self,
        video: EncodedVideo,
        *,
        device: str = "cpu",
        store: IndexStore | None = None,
        allow_truncated: bool = False,
    ) -> None:
        """Open a video.

        Args:
            video: As for `VideoReader`, and so the others but the device.
            device: Where to decode, `cpu`, or `cuda` for the current CUDA device; frames come to memory in any case.
            store: Likewise.
            allow_truncated: Likewise; such a file is left to PyAV.

        Raises:
            VideoReadError: As `VideoReader` does.
            ConfigError: If torchcodec is not here.
        """
        self._module = torchcodec_decoders()
        super().__init__(video, store=store, allow_truncated=allow_truncated)
        self._device = device
        self._decoder: Any = None
        self._is_left_to_pyav = allow_truncated

    def frames(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, size: tuple[int, int] | None = None
    ) -> ByteArray:
        """Read frames by index; see `VideoReader.frames`."""
        self._check_open()
        wanted = np.asarray(indices, np.int64).reshape(-1)
        height, width = checked_size(size) or (self.info.height, self.info.width)
        self._check_numbers(wanted, self._known_index())
        numbers, rows = np.unique(wanted, return_inverse=True)  # ascending: decoded once
        found = np.empty((len(numbers), height, width, 3), np.uint8)
        own = RgbConverter(self._file.name, Orientation(), width=self.info.width, height=self.info.height)
        try:
            for row, frame in enumerate(self._decoded_by_torchcodec(numbers)):
                if size is not None:
                    picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    frame = own.convert(picture, width=width, height=height)
                found[row] = frame
        except _NotTheFrameError as error:
            self._leave_to_pyav(str(error))
            return super().frames(wanted, size=size)
        return found if np.array_equal(numbers, wanted) else found[rows]

    def frames_in_order(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, threads: int = 1
    ) -> Iterator[ByteArray]:
        """Iterate over some frames in one pass; see `VideoReader.frames_in_order`."""
        self._check_open()
        wanted = np.asarray(indices, np.int64).reshape(-1)
        num_given = 0
        try:
            for frame in self._decoded_by_torchcodec(wanted[(wanted >= 0) & (wanted < len(self))], threads):
                yield frame
                num_given += 1
        except _NotTheFrameError as error:
            self._leave_to_pyav(str(error))
        yield from super().frames_in_order(wanted[num_given:], threads=threads)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._decoder = None
        super().close()

    def _decoded_by_torchcodec(self, numbers: NDArray[np.int64], threads: int = 1) -> Iterator[ByteArray]:
        """Iterate over frames, `[H, W, 3]`, their indices ascending.

        Raises:
            _NotTheFrameError: In place of the first that torchcodec cannot give, or all.
        """
        index = self._known_index()
        if self._is_left_to_pyav:
            raise _NotTheFrameError("")
        if self._decoder is None:
            self._decoder = self._open_decoder(index, threads)
        assert index.pts is not None
        times = index.pts * self._video.seconds_per_unit
        step = max(1, _CHUNK_BYTES // (self.info.height * self.info.width * 3))
        for start in range(0, len(numbers), step):
            chunk = numbers[start : start + step]
            try:
                batch = self._decoder.get_frames_at(chunk.tolist())
                pixels: ByteArray = batch.data.cpu().numpy()
            except Exception as error:  # its own are RuntimeError, IndexError and ValueError
                raise _NotTheFrameError(f"frames {chunk[0]} to {chunk[-1]}: {_first_line(error)}") from error
            seconds = batch.pts_seconds.cpu().numpy()
            for number in chunk[np.abs(seconds - times[chunk]) > _SAME_SECONDS][:1]:
                raise _NotTheFrameError(f"in place of frame {number} it gives another one")
            yield from pixels

    def _open_decoder(self, index: FrameIndex, threads: int) -> Any:
        container = self._video.container.format
        if index.packet_of is None:
            raise _NotTheFrameError("its packets alone do not tell which frame is where")
        if container not in CONTAINERS:
            raise _NotTheFrameError(f"its container is {container}")
        if self.info.is_mirrored:
            raise _NotTheFrameError("it is to be mirrored")
        try:
            decoder = self._module.VideoDecoder(
                self._file.source(),
                stream_index=self.info.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=threads,
                device=self._device,
                seek_mode="exact",
            )
        except Exception as error:
            raise _NotTheFrameError(_first_line(error)) from error
        if len(decoder) != index.num_frames:
            raise _NotTheFrameError(f"it counts {len(decoder)} frames, a full decode gives {index.num_frames}")
        facts = decoder.metadata
        if (facts.height, facts.width) != (self.info.height, self.info.width):
            raise _NotTheFrameError(f"it gives frames of {facts.width}x{facts.height} pixels")
        if (-round(facts.rotation or 0) - self.info.rotation_degrees) % 360:
            raise _NotTheFrameError(f"it turns frames by {-facts.rotation:g} degrees")
        if self._device != "cpu" and decoder.cpu_fallback:
            _tell(f"{self._file.name} is decoded on the CPU: {decoder.cpu_fallback}", _ON_CPU)
        return decoder

    def _leave_to_pyav(self, why: str) -> None:
        self._decoder = None
        if not self._is_left_to_pyav:
            self._is_left_to_pyav = True
            _tell(
                f"{self._file.name} is read by PyAV instead of torchcodec, so that its frames are right: {why}", _LEFT
            )


# Openings of videos in this process that were not decoded as asked.
_LEFT, _ON_CPU = [0], [0]


def _tell(text: str, count: list[int]) -> None:
    """Warn of a video, and of the first, the tenth, the hundredth only: a collection has many of a kind."""
    count[0] += 1
    if count[0] == 10 ** (len(str(count[0])) - 1):
        warnings.warn(f"{text} ({count[0]} so far in this process)", UserWarning, stacklevel=2)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
