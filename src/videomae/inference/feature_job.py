"""Features of many videos into one table: batches across videos, one pass over each, nothing done twice.

Videos are decoded in threads and encoded in batches that go on from one video to the next, so that short videos fill
a GPU as well as long ones. Memory holds a few batches, however many and however long the videos are.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae import __version__
from videomae.data.datasets import BadVideo
from videomae.engine.jobs import num_processors
from videomae.engine.precision import DeviceName, Precision, compute_dtype
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import DEFAULT_BATCH_SIZE, check_batch_size, clip_batches
from videomae.inference.configs import Pooling
from videomae.inference.feature_table import FinishedVideo, Rows, TableParts, as_text
from videomae.inference.files import check_output, collection_store, list_inputs
from videomae.inference.loaded import load_encoder
from videomae.inference.pooling import Encoder, check_pooling, pooled_rows, time_spans
from videomae.inference.read_ahead import in_order
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import frame_times, open_as_far_as_whole
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig

FloatArray = NDArray[np.float64]

FLUSH_SECONDS = 1.0  # of work that a killed process may lose
FLUSH_BYTES = 16 * 2**20  # of vectors that wait to be written
MAX_READERS = 4  # threads that decode where their number is not given: each holds batches of frames


@dataclass(frozen=True)
class TableResult:
    """What is in a table of features."""

    output: Path
    """The table."""
    finished: tuple[FinishedVideo, ...]
    """Its videos."""
    num_before: int
    """How many of them an earlier call had done."""
    bad: tuple[BadVideo, ...]
    """Videos of which nothing could be read, and those that broke off, with the reasons."""


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


def write_feature_table(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    pooling: Pooling = "clip",
    windows: WindowChoice | None = None,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
    precision: Precision = "fp32",
    batch_size: int = DEFAULT_BATCH_SIZE,
    shard: tuple[int, int] | None = None,
    resume: bool = False,
    workers: int | None = None,
    flush_seconds: float = FLUSH_SECONDS,
) -> TableResult:
    """Compute the features of videos and write them into one table, `.parquet` or `.npz`.

    What is done is on the disk within a second, and a call with `resume` goes on from there: after a signal, a full
    disk or `kill -9` no finished video is done again, and a long one goes on with the window after the last.

    Args:
        source: Folder of any model or of a finished run, weights file, or Hub name.
        videos: Files, folders of them of any depth, manifests, addresses.
        output: The table; see `feature_table`.
        pooling: Which vectors; see `pooling`.
        windows: Which clips of each video; None: the one from its middle.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.
        precision: Compute dtype of matrix multiplications. In float32 on the CPU every vector is that of its clip
            alone, to the bit.
        batch_size: Clips in one forward pass.
        shard: (i, n): every n-th video only, beginning with the i-th.
        resume: Go on with an unfinished table, or add videos to one in Parquet.
        workers: Threads that decode, a video each.
        flush_seconds: Least time from one part to the next.

    Returns:
        What is in the table. Where nothing could be read there is no table.

    Raises:
        WeightsError: If the source cannot be loaded.
        ConfigError: If a setting is out of range, or not that of the table to go on with.
        RunError: If the table cannot be written.
    """
    target, choice = Path(output), windows or WindowChoice()
    check_pooling(pooling)
    check_batch_size(batch_size)
    if target.suffix not in (".parquet", ".npz"):
        raise ConfigError(f"output is {str(target)!r}; a table's name must end with .parquet or .npz")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it is a number of threads, at least 1")
    check_output(target)
    loaded = load_encoder(source, clip=clip, device=device)
    settings = {
        "version": __version__,
        "model": loaded.source,
        "weights": weights_digest(loaded.model),
        "width": loaded.model.config.hidden_size,
        "pooling": pooling,
        "clip": asdict(loaded.clip),
        **asdict(choice),
        "precision": str(compute_dtype(precision, loaded.model.device)).removeprefix("torch."),
    }
    bad, paths = [], dict[str, Path | str]()
    for number, item in enumerate(list_inputs(videos)):
        if isinstance(item, BadVideo):
            bad.append(item)
        elif shard is None or number % shard[1] == shard[0]:
            paths.setdefault(as_text(str(item)), item)
    parts = TableParts(target, settings, resume=resume)
    num_before = sum(path in parts.finished for path in paths)
    job = _Job(loaded, parts, choice, pooling, compute_dtype(precision, loaded.model.device), batch_size)
    todo = {path: item for path, item in paths.items() if path not in parts.finished}
    try:
        job.run(todo, collection_store(videos), workers or min(MAX_READERS, num_processors()), flush_seconds)
    except KeyboardInterrupt:
        warnings.warn(
            f"stopped: {len(parts.finished)} of {len(paths)} videos are kept in {parts.folder}; go on with --resume",
            UserWarning,
            stacklevel=2,
        )
        raise
    finally:
        parts.discard_if_empty()
    if any(parts.parts()):
        parts.finish()
    faults = [BadVideo(one.path, one.fault) for one in parts.finished.values() if one.fault and one.path in todo]
    return TableResult(target, tuple(parts.finished.values()), num_before, (*bad, *job.bad, *faults))


@dataclass
class _Job:
    """The state of one call."""

    loaded: Encoder
    parts: TableParts
    choice: WindowChoice
    pooling: Pooling
    dtype: torch.dtype
    batch_size: int

    def __post_init__(self) -> None:
        self.bad: list[BadVideo] = []

    def run(
        self, videos: dict[str, Path | str], store: IndexStore | None, workers: int, flush_seconds: float
    ) -> None:
        rows: list[Rows] = []
        over: list[FinishedVideo] = []
        last = time.monotonic()
        sources = [partial(self._read, path, item, store) for path, item in videos.items()]
        progress = TrainingProgress("features", total_steps=len(videos), unit="windows")
        # Closed before anything else goes on, so that no thread is left decoding.
        with progress, closing(in_order(sources, workers=workers)) as items:
            num_done = 0
            try:
                for windows, ended in self._batches(items):
                    rows += self._encoded(windows)
                    over += [one for one in ended if one.windows]
                    num_done += len(ended)
                    progress.update(num_done, num_clips=len(windows))
                    waiting = sum(one.vectors.nbytes for one in rows)
                    is_due = time.monotonic() - last >= flush_seconds
                    if (is_due and (over or rows)) or waiting >= FLUSH_BYTES:
                        self.parts.add(rows, over)
                        rows, over, last = [], [], time.monotonic()
            except KeyboardInterrupt:
                if rows or over:
                    self.parts.add(rows, over)
                raise
            if rows or over:
                self.parts.add(rows, over)

    def _read(self, path: str, item: Path | str, store: IndexStore | None) -> Generator[_Clips | _Over, None, None]:
        """Yield the windows of one video that are still to do, in order; runs in a thread."""
        done = first = self.parts.begun.get(path, 0)
        fault: str | None = None
        try:
            with open_as_far_as_whole(item, store=store, fps=self.loaded.clip.fps) as (reader, fault):
                times, ends = frame_times(reader.timestamps_seconds, reader.info.frame_rate)
                indices = self.choice.indices(reader, self.loaded.clip)[first:]  # [W, T]
                batches = clip_batches(reader.frames, indices, self.loaded.processor, batch_size=self.batch_size)
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


def weights_digest(model: nn.Module) -> str:
    """Return 16 hexadecimal digits that tell a model's weights from others."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
