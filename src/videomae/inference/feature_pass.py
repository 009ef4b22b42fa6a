"""One pass over many videos: their windows through the encoder, into the parts of a table.

Videos are decoded in threads and encoded in batches that go on from one video to the next, so that short videos fill
a GPU as well as long ones. Memory holds a few batches, however many and however long the videos are.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.datasets import BadVideo
from videomae.engine.jobs import num_processors
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import clip_batches
from videomae.inference.configs import Pooling
from videomae.inference.feature_table import FinishedVideo, Rows, TableParts
from videomae.inference.pooling import Encoder, pooled_rows, time_spans
from videomae.inference.read_ahead import in_order
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import MAX_DECODERS, frame_times, open_as_far_as_whole
from videomae.video.index_store import IndexStore

FloatArray = NDArray[np.float64]

FLUSH_SECONDS = 1.0  # of work that a killed process may lose
FLUSH_BYTES = 16 * 2**20  # of vectors that wait to be written


class _Clips(NamedTuple):
    """Some windows of a video."""

    path: str
    first: int
    clips: Tensor  # uint8 [b, T, C, h, w]
    starts: FloatArray  # [b, T]
    ends: FloatArray  # [b, T]


class _Over(NamedTuple):
    """A video has no more windows."""

    path: str
    windows: int
    fault: str | None


class _Window(NamedTuple):
    path: str
    number: int
    clip: Tensor  # uint8 [T, C, h, w]
    starts: FloatArray  # [T]
    ends: FloatArray  # [T]


@dataclass
class FeaturePass:
    """The state of one pass."""

    loaded: Encoder
    """The model."""
    parts: TableParts
    """Where rows go, and what is there of them."""
    choice: WindowChoice
    """Which clips of each video."""
    pooling: Pooling
    """Which vectors."""
    dtype: torch.dtype
    """Of the matrix multiplications."""
    batch_size: int
    """Clips in one forward pass."""

    def __post_init__(self) -> None:
        self.bad: list[BadVideo] = []
        """Videos of which nothing could be read."""

    def run(
        self,
        videos: Mapping[str, Path | str],
        *,
        store: IndexStore | None,
        workers: int,
        flush_seconds: float = FLUSH_SECONDS,
        progress: TrainingProgress | None = None,
    ) -> None:
        """Encode the windows that are still to do; an interrupt keeps what is encoded.

        Args:
            videos: By their names in the table.
            store: Keeps what is known of the files of a collection.
            workers: Threads that decode, a video each.
            flush_seconds: Least time from one part to the next.
            progress: Told how many videos are through, a step each.

        Raises:
            RunError: If the table cannot be written.
        """
        rows: list[Rows] = []
        over: list[FinishedVideo] = []
        last = time.monotonic()
        # What one video alone gets, many share.
        threads = max(1, min(MAX_DECODERS, num_processors()) // max(1, min(workers, len(videos))))
        sources = [partial(self._read, path, item, store, threads) for path, item in videos.items()]
        # Closed before anything else goes on, so that no thread is left decoding.
        with closing(in_order(sources, workers=workers)) as items:
            num_done = 0
            try:
                for windows, ended in self._batches(items):
                    rows += self._encoded(windows)
                    over += [one for one in ended if one.windows]
                    num_done += len(ended)
                    if progress is not None:
                        progress.update(num_done, num_clips=len(windows))
                    waiting = sum(one.vectors.nbytes for one in rows)
                    is_due = time.monotonic() - last >= flush_seconds
                    if (is_due and (over or rows)) or waiting >= FLUSH_BYTES:
                        # Taken out first: what an interrupt meets in here must not be written a second time.
                        due, rows, over, last = (rows, over), [], [], time.monotonic()
                        self.parts.add(*due)
            except KeyboardInterrupt:
                if rows or over:
                    self.parts.add(rows, over)
                raise
            if rows or over:
                self.parts.add(rows, over)

    def _read(
        self, path: str, item: Path | str, store: IndexStore | None, threads: int
    ) -> Generator[_Clips | _Over, None, None]:
        """Yield the windows of one video that are still to do, in order; runs in a thread."""
        torch.set_num_threads(1)  # of this thread, which resizes
        done = first = self.parts.begun.get(path, 0)
        fault: str | None = None
        try:
            with open_as_far_as_whole(item, store=store, fps=self.loaded.clip.fps, decoder=self.loaded.decoder) as (
                reader,
                fault,
            ):
                times, ends = frame_times(reader.timestamps_seconds, reader.info.frame_rate)
                indices = self.choice.indices(reader, self.loaded.clip)[first:]  # [W, T]
                read = partial(reader.frames_in_order, threads=threads)
                batches = clip_batches(read, indices, self.loaded.processor, batch_size=self.batch_size)
                for clips in batches:
                    frames = indices[done - first : done - first + len(clips)]
                    yield _Clips(path, done, clips, times[frames], ends[frames])
                    done += len(clips)
        except (VideoReadError, ConfigError) as error:
            fault = str(error)
        yield _Over(path, done, fault)

    def _batches(self, items: Iterator[_Clips | _Over]) -> Iterator[tuple[list[_Window], list[FinishedVideo]]]:
        """Yield `batch_size` windows of any videos, and the videos that end with them or had ended before."""
        windows: list[_Window] = []
        ended: list[FinishedVideo] = []
        for item in items:
            if isinstance(item, _Over):
                if item.windows == 0:
                    self.bad.append(BadVideo(item.path, item.fault or f"{item.path} has no window"))
                ended.append(FinishedVideo(item.path, item.windows, item.fault))
                continue
            if windows and windows[0].clip.shape != item.clips.shape[1:]:  # a processor that does not crop
                yield windows, ended
                windows, ended = [], []
            for offset, clip in enumerate(item.clips):
                windows.append(_Window(item.path, item.first + offset, clip, item.starts[offset], item.ends[offset]))
                if len(windows) == self.batch_size:
                    yield windows, ended
                    windows, ended = [], []
        if windows or ended:
            yield windows, ended

    def _encoded(self, windows: list[_Window]) -> list[Rows]:
        if not windows:
            return []
        vectors = pooled_rows(
            self.loaded, torch.stack([one.clip for one in windows]), self.pooling, dtype=self.dtype
        )  # [b, ..., D]
        spans = time_spans(
            self.pooling,
            np.stack([one.starts for one in windows]),
            np.stack([one.ends for one in windows]),
            tubelet_size=self.loaded.model.config.tubelet_size,
            num_rows=vectors.shape[1],
        )
        width = vectors.shape[-1]
        return [
            Rows(one.path, one.number, span.reshape(-1, 2), vector.reshape(-1, width).numpy())
            for one, span, vector in zip(windows, spans, vectors, strict=True)
        ]
