"""Features of many videos into one table: what is to do, in which precision and on which machines; nothing twice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from videomae import __version__
from videomae.data.datasets import BadVideo
from videomae.engine.configs import Backend, InferencePrecision, JobEngine
from videomae.engine.jobs import num_processors
from videomae.engine.precision import DeviceName
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError
from videomae.inference.backends import needs_clips, settled_precision
from videomae.inference.certificate import Certificate, check_min_cosine, in_feature_precision
from videomae.inference.clips import DEFAULT_BATCH_SIZE, check_batch_size
from videomae.inference.configs import MIN_COSINE, Pooling
from videomae.inference.feature_cluster import VideoJob, run_video_jobs
from videomae.inference.feature_pass import FLUSH_SECONDS, FeaturePass
from videomae.inference.feature_table import FinishedVideo, TableParts, as_text
from videomae.inference.files import check_output, collection_store, list_inputs
from videomae.inference.loaded import load_encoder, weights_digest
from videomae.inference.pooling import check_pooling
from videomae.inference.some_windows import spread_windows
from videomae.inference.window_choice import WindowChoice
from videomae.video.decoders import DecoderName, check_decoder
from videomae.video.sampling import ClipConfig

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


def write_feature_table(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    pooling: Pooling = "clip",
    windows: WindowChoice | None = None,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
    precision: InferencePrecision = "fp32",
    backend: Backend = "torch",
    min_cosine: float = MIN_COSINE,
    batch_size: int = DEFAULT_BATCH_SIZE,
    shard: tuple[int, int] | None = None,
    resume: bool = False,
    engine: JobEngine = "local",
    workers: int | None = None,
    decoder: DecoderName = "pyav",
    flush_seconds: float = FLUSH_SECONDS,
    told: Callable[[Certificate], None] | None = None,
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
            alone, to the bit. int8 is for CPUs, and taken where some windows agree with float32.
        backend: What computes the model's blocks: torch, or OpenVINO, which is faster on a CPU.
        min_cosine: How well they have to agree, see `certificate`; 0 takes int8 whatever comes of it.
        batch_size: Clips in one forward pass.
        shard: (i, n): every n-th video only, beginning with the i-th.
        resume: Go on with an unfinished table, or add videos to one in Parquet.
        engine: Where to work: here, or on a Ray cluster whose machines see the same disks, a processor and a video
            at a time.
        workers: Threads that decode, a video each; on Ray, videos at a time.
        decoder: What decodes videos; other frames than PyAV's differ by rounding alone.
        flush_seconds: Least time from one part to the next.
        told: Called with what int8 does to some windows.

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
    check_min_cosine(min_cosine)
    if engine == "ray" and device not in ("auto", "cpu"):
        raise ConfigError(f"device is {device!r}, and the engine ray computes on processors: leave --device out")
    if engine == "ray" and needs_clips(precision, backend):
        raise ConfigError(
            "precision is 'int8' and the backend 'openvino', which takes ranges from some of the videos, and each "
            "process of the engine ray has one video: use bf16, or the engine local"
        )
    check_output(target)
    check_decoder(decoder, workers=1 if engine == "ray" else 0)
    loaded = load_encoder(source, clip=clip, device="cpu" if engine == "ray" else device)
    loaded = replace(loaded, decoder=decoder)
    settings = {
        "version": __version__,
        "model": loaded.source,
        "weights": weights_digest(loaded.model),
        "width": loaded.model.config.hidden_size,
        "pooling": pooling,
        "clip": asdict(loaded.clip),
        **asdict(choice),
        "precision": settled_precision(precision, loaded.model.device),
        **({} if decoder == "pyav" else {"decoder": decoder}),  # unnamed by earlier versions
        **({} if backend == "torch" else {"backend": backend}),  # likewise
    }
    bad, paths = [], dict[str, Path | str]()
    for number, item in enumerate(list_inputs(videos)):
        if isinstance(item, BadVideo):
            bad.append(item)
        elif shard is None or number % shard[1] == shard[0]:
            paths.setdefault(as_text(str(item)), item)
    parts, store = TableParts(target, settings, resume=resume), collection_store(videos)
    num_before = sum(path in parts.finished for path in paths)
    todo = {path: item for path, item in paths.items() if path not in parts.finished}
    progress = TrainingProgress("features", total_steps=len(todo), unit="windows")
    try:
        # Of all videos, also those that are done: a table that is gone on with is in the same integers.
        some = spread_windows(
            list(paths.values()) if todo else [], choice, clip=loaded.clip, processor=loaded.processor, store=store
        )
        encoder, dtype = in_feature_precision(
            loaded, precision, pooling, some, backend=backend, min_cosine=min_cosine, told=told
        )
        with progress:
            if engine == "ray":
                plan = VideoJob(os.fspath(source), settings, choice, pooling, loaded.clip, batch_size, store)
                bad += run_video_jobs(plan, parts, todo, workers=workers, progress=progress)
            else:
                work = FeaturePass(encoder, parts, choice, pooling, dtype, batch_size)
                readers = workers or min(MAX_READERS, num_processors())
                work.run(todo, store=store, workers=readers, flush_seconds=flush_seconds, progress=progress)
                bad += work.bad
    except KeyboardInterrupt:
        warnings.warn(
            f"stopped: {len(parts.finished)} of {len(paths)} videos are kept in {parts.folder}; "
            "continue with --resume",
            UserWarning,
            stacklevel=2,
        )
        raise
    finally:
        parts.discard_if_empty()
    if any(parts.parts()):
        parts.finish()
    faults = [BadVideo(one.path, one.fault) for one in parts.finished.values() if one.fault and one.path in todo]
    return TableResult(target, tuple(parts.finished.values()), num_before, (*bad, *faults))
