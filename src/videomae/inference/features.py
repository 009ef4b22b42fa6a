"""Features of videos: the encoder's output for a clip, with the time span of every row; see `pooling` for which.

This is for results in memory and in one safetensors file; `feature_job` writes tables of any size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.atomic import atomic_file
from videomae.data.datasets import BadVideo
from videomae.engine.configs import Backend, InferencePrecision
from videomae.engine.precision import DeviceName
from videomae.errors import VideoReadError, WeightsError
from videomae.inference.certificate import Certificate, check_min_cosine, in_feature_precision
from videomae.inference.clips import DEFAULT_BATCH_SIZE, check_batch_size, clip_batches
from videomae.inference.configs import MIN_COSINE
from videomae.inference.configs import Pooling as Pooling
from videomae.inference.feature_file import FeatureWriter, feature_settings, read_feature_file
from videomae.inference.files import check_output, collection_store, list_inputs
from videomae.inference.loaded import load_encoder
from videomae.inference.pooling import Encoder, check_pooling, pooled_rows, time_spans
from videomae.inference.some_windows import spread_windows
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import frame_times
from videomae.video.decoders import DecoderName, check_decoder
from videomae.video.opening import Reader, open_reader, stored_frames
from videomae.video.sampling import ClipConfig, IntArray

FloatArray = NDArray[np.float64]
Parts: TypeAlias = dict[str, Iterator[Tensor]]
"""The tensors of a video by name, as parts along their first dimension, computed when they are asked for."""


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video."""

    path: str
    """The file, as it was given."""
    features: Tensor
    """float32, `[D]`, `[t, D]`, `[T, D]` or `[N, D]`; with sliding clips one dimension more in front, `[W, ...]`."""
    time_spans: Tensor
    """float64, the shape of `features` but 2 for D: start and end of each row in seconds from the first frame."""
    frame_indices: Tensor
    """int64 `[T]`, or `[W, T]`: the frames that were read, by their indices in the whole video."""


@dataclass(frozen=True)
class FeatureSet:
    """The features of several videos, and how they were made."""

    model: str
    """Where the model came from."""
    pooling: Pooling
    """Which vectors."""
    clip: ClipConfig
    """How clips were sampled."""
    step_frames: int | None
    """Distance of sliding clips in frames; None: one clip from the middle of each video."""
    videos: tuple[VideoFeatures, ...]
    """In the order asked."""
    bad: tuple[BadVideo, ...] = ()
    """Videos that could not be read; they are in no file."""
    window_seconds: float | None = None
    """Length of sliding clips, where it was given in seconds."""
    step_seconds: float | None = None
    """Their distance, likewise."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but `bad` into one safetensors file, atomically; see `feature_file`.

        Raises:
            WeightsError: If the file cannot be written.
        """
        choice = WindowChoice(self.step_frames, self.window_seconds, self.step_seconds)
        settings = feature_settings(model=self.model, pooling=self.pooling, clip=self.clip, windows=asdict(choice))
        try:
            with atomic_file(Path(path)) as stream:
                writer = FeatureWriter(stream, settings, [video.path for video in self.videos])
                for video in self.videos:
                    names = ("features", "time_spans", "frame_indices")
                    writer.add(video.path, {name: [getattr(video, name)] for name in names})
                writer.finish()
        except OSError as error:
            raise _cannot_write(path, error) from None


@dataclass(frozen=True)
class WrittenFeatures:
    """What `write_features` put into its file."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Path of each video and shape of its features, in the order asked."""
    bad: tuple[BadVideo, ...]
    """Videos that could not be read; they are not in the file."""


def load_features(path: str | os.PathLike[str]) -> FeatureSet:
    """Read what `FeatureSet.save` or `write_features` wrote.

    Raises:
        WeightsError: If the file is missing, damaged, or no file of features.
    """
    metadata, videos = read_feature_file(Path(path))
    return FeatureSet(
        model=metadata["model"],
        pooling=metadata["pooling"],
        clip=ClipConfig(**metadata["clip"]),
        step_frames=metadata["step_frames"],
        window_seconds=metadata.get("window_seconds"),
        step_seconds=metadata.get("step_seconds"),
        videos=tuple(VideoFeatures(name, **tensors) for name, tensors in zip(metadata["paths"], videos, strict=True)),
    )


def extract_features(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    *,
    pooling: Pooling = "clip",
    step_frames: int | None = None,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> FeatureSet:
    """Compute the features of videos and return them; `write_features` is for more than memory holds.

    Args:
        source: Folder of any model or of a finished run, weights file, or Hub name.
        videos: Files, folders of them of any depth, manifests, addresses.
        pooling: Which vectors; see `pooling`.
        step_frames: None for one clip from the middle of each video; else clips that start this many frames apart
            and together cover the whole video.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute; always in float32.
        batch_size: Clips of one video in one forward pass.

    Returns:
        The features of all videos that could be read, and the names of the others. All are kept in memory: a clip's
        tokens take 4.8 MB for the base model and 16 frames.

    Raises:
        WeightsError: If the source cannot be loaded.
        ConfigError: If a setting is out of range or does not fit the model.
    """
    choice = WindowChoice(step_frames)
    _check_settings(pooling, batch_size)
    loaded = load_encoder(source, clip=clip, device=device)
    good: list[VideoFeatures] = []
    bad: list[BadVideo] = []
    store = collection_store(videos)
    for item in list_inputs(videos):
        if isinstance(item, BadVideo):
            bad.append(item)
            continue
        try:
            with open_reader(item, store=store, fps=loaded.clip.fps) as reader:
                parts = _feature_parts(loaded, reader, pooling, choice, batch_size)
                found = _video_features(item, parts)
        except VideoReadError as error:
            bad.append(BadVideo(str(item), str(error)))
        else:
            good.append(found)
    return FeatureSet(loaded.source, pooling, loaded.clip, step_frames, tuple(good), tuple(bad))


def write_features(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    pooling: Pooling = "clip",
    step_frames: int | None = None,
    window_seconds: float | None = None,
    step_seconds: float | None = None,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
    precision: InferencePrecision = "fp32",
    backend: Backend = "torch",
    min_cosine: float = MIN_COSINE,
    batch_size: int = DEFAULT_BATCH_SIZE,
    decoder: DecoderName = "pyav",
    told: Callable[[Certificate], None] | None = None,
) -> WrittenFeatures:
    """Compute the features of videos and write them, a batch at a time, into one safetensors file.

    The memory used is that of a batch, whatever the number and the length of the videos. The file is complete or not
    there; where no video can be read, none is written.

    Args:
        source: As for `extract_features`.
        videos: As for `extract_features`.
        output: The file, `.safetensors`, in a folder that exists. `load_features` reads it.
        pooling: As for `extract_features`, and so those that are not named here.
        step_frames: Likewise.
        window_seconds: Length of windows over the whole video, as `WindowChoice` says.
        step_seconds: Their distance, likewise.
        clip: As for `extract_features`.
        device: Likewise.
        precision: Compute dtype of matrix multiplications; the features are float32 in any case. int8 is for CPUs,
            and taken where some windows agree with float32.
        backend: What computes the model's blocks: torch, or OpenVINO, which is faster on a CPU.
        min_cosine: How well they have to agree, see `certificate`; 0 takes int8 whatever comes of it.
        batch_size: As for `extract_features`.
        decoder: What decodes videos; other frames than PyAV's differ by rounding alone.
        told: Called with what int8 does to some windows.

    Returns:
        What is in the file, and the videos that could not be read.

    Raises:
        WeightsError: If the source cannot be loaded, or the file cannot be written.
        ConfigError: If a setting is out of range or does not fit the model, or the output can be no such file.
    """
    choice = WindowChoice(step_frames, window_seconds, step_seconds)
    _check_settings(pooling, batch_size)
    check_min_cosine(min_cosine)
    check_output(output, suffix=".safetensors")
    check_decoder(decoder)
    loaded = replace(load_encoder(source, clip=clip, device=device), decoder=decoder)
    items = list(list_inputs(videos))
    store = collection_store(videos)
    readable = [item for item in items if not isinstance(item, BadVideo)]
    some = spread_windows(readable, choice, clip=loaded.clip, processor=loaded.processor, store=store)
    loaded, dtype = in_feature_precision(
        loaded, precision, pooling, some, backend=backend, min_cosine=min_cosine, told=told
    )
    settings = feature_settings(model=loaded.source, pooling=pooling, clip=loaded.clip, windows=asdict(choice))
    shapes: list[tuple[str, tuple[int, ...]]] = []
    bad: list[BadVideo] = []
    try:
        with suppress(_NothingReadError), atomic_file(Path(output)) as stream:
            writer = FeatureWriter(stream, settings, [str(item) for item in readable])
            for item in items:
                if isinstance(item, BadVideo):
                    bad.append(item)
                    continue
                try:
                    with open_reader(item, store=store, fps=loaded.clip.fps, decoder=decoder) as reader:
                        parts = _feature_parts(loaded, reader, pooling, choice, batch_size, dtype)
                        written = writer.add(str(item), parts)
                except VideoReadError as error:
                    bad.append(BadVideo(str(item), str(error)))
                else:
                    shapes.append((str(item), tuple(written["features"])))
            if not shapes:
                raise _NothingReadError
            writer.finish()
    except OSError as error:
        raise _cannot_write(output, error) from None
    except KeyboardInterrupt:
        warnings.warn(
            f"stopped after {len(shapes)} of {len(items)} videos, and {output} is not written: to keep what is done, "
            "give some of the videos at a time, each time with a file of its own",
            UserWarning,
            stacklevel=2,
        )
        raise
    return WrittenFeatures(tuple(shapes), tuple(bad))


class _NothingReadError(Exception):
    """No video could be read, so no file takes its name. Never leaves this file."""


def video_features(
    loaded: Encoder,
    path: str | os.PathLike[str],
    *,
    pooling: Pooling,
    step_frames: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> VideoFeatures:
    """Compute the features of one video; see `extract_features`.

    Raises:
        VideoReadError: If the video cannot be read.
    """
    with open_reader(path, fps=loaded.clip.fps) as reader:
        return _video_features(path, _feature_parts(loaded, reader, pooling, WindowChoice(step_frames), batch_size))


def _video_features(path: str | os.PathLike[str], parts: Parts) -> VideoFeatures:
    return VideoFeatures(os.fspath(path), **{name: torch.cat(list(found)) for name, found in parts.items()})


def _check_settings(pooling: Pooling, batch_size: int) -> None:
    check_pooling(pooling)
    check_batch_size(batch_size)


def _cannot_write(path: str | os.PathLike[str], error: OSError) -> WeightsError:
    return WeightsError(f"{os.fspath(path)} cannot be written ({error}): free space or choose another file")


def _feature_parts(
    loaded: Encoder,
    reader: Reader,
    pooling: Pooling,
    choice: WindowChoice,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
) -> Parts:
    """Return the tensors of `VideoFeatures`, each in parts of at most `batch_size` clips."""
    indices = choice.indices(reader, loaded.clip)  # [W, T]
    batches = clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=batch_size)
    rows = (pooled_rows(loaded, clips, pooling, dtype=dtype) for clips in batches)
    first = next(rows)  # the number of rows of a clip is known from here
    spans = _span_parts(loaded, reader, indices, pooling, batch_size, num_rows=first.shape[1])
    parts = {
        "features": chain((first,), rows),
        "time_spans": spans,
        "frame_indices": iter([_tensor(stored_frames(reader, indices))]),
    }
    if choice.is_middle:
        return {name: (part[0] for part in found) for name, found in parts.items()}
    return parts


def _span_parts(
    loaded: Encoder, reader: Reader, indices: IntArray, pooling: Pooling, batch_size: int, *, num_rows: int
) -> Iterator[Tensor]:
    times, ends = frame_times(reader.timestamps_seconds, reader.info.frame_rate)
    size = loaded.model.config.tubelet_size
    for start in range(0, len(indices), batch_size):
        rows = indices[start : start + batch_size]  # [b, T]; ascending within a clip
        yield _tensor(time_spans(pooling, times[rows], ends[rows], tubelet_size=size, num_rows=num_rows))


def _tensor(values: NDArray[np.int64] | FloatArray) -> Tensor:
    return torch.from_numpy(values)
