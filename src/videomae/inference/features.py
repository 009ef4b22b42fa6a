"""Features of videos: what the encoder makes of a clip, with the time span of every row.

Which vectors, for a clip of T frames, `t = T / 2` tubelets in time and `N` tokens:

- `token` `[N, D]`: the encoder's output, after its final LayerNorm if it has one. Pre-trained networks do;
  classifiers that pool by mean do not.
- `tubelet` `[t, D]`: the mean of the tokens of each time slice.
- `frame` `[T, D]`: the row of a frame's tubelet, once for each of its frames; nothing in the network is finer.
- `clip` `[D]`: for a classifier, exactly what its last layer sees (for one that pools by mean: the mean of all
  tokens, after `fc_norm`); for any other network, the mean of all tokens.

Hence for a classifier that pools by mean, `fc_norm` of the mean of token, tubelet or frame rows is the clip row.
A CLS token, which only networks of one's own have, is in no row but the clip row of a classifier that uses it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videomae import __version__
from videomae.atomic import atomic_path
from videomae.data.datasets import BadVideo
from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError, VideoReadError, WeightsError
from videomae.inference.files import list_videos
from videomae.inference.loaded import LoadedModel, load_encoder
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel, encode
from videomae.video.decode import VideoReader
from videomae.video.sampling import ClipConfig, IntArray, centre_clip, sliding_clips

Pooling = Literal["clip", "frame", "tubelet", "token"]
Encoder = LoadedModel[VideoMAEModel] | LoadedModel[VideoMAEForVideoClassification]
FloatArray = NDArray[np.float64]
METADATA_KEY = "videomae"  # the one entry of the file's text metadata


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
    """int64 `[T]`, or `[W, T]`: the frames of the video that were read."""


@dataclass(frozen=True)
class FeatureSet:
    """The features of several videos, and how they were made."""

    model: str
    """Where the network came from."""
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but `bad` into one safetensors file, atomically.

        Tensors are called `<number>:<path>/features`, `.../time_spans` and `.../frame_indices`; the number, five
        digits, keeps equal paths apart. The metadata entry `videomae` is JSON text.

        Raises:
            WeightsError: If the file cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for number, video in enumerate(self.videos):
            prefix = f"{number:05d}:{_text(video.path)}"
            tensors[f"{prefix}/features"] = video.features.contiguous()
            tensors[f"{prefix}/time_spans"] = video.time_spans.contiguous()
            tensors[f"{prefix}/frame_indices"] = video.frame_indices.contiguous()
        metadata = {
            "version": __version__,
            "model": self.model,
            "pooling": self.pooling,
            "clip": asdict(self.clip),
            "step_frames": self.step_frames,
            "paths": [_text(video.path) for video in self.videos],
        }
        entries = {METADATA_KEY: json.dumps(metadata)}
        try:
            with atomic_path(Path(path)) as partial:
                save_file(tensors, partial, metadata=entries)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} cannot be written ({error}): free space or choose another file") from None


def load_features(path: str | os.PathLike[str]) -> FeatureSet:
    """Read what `FeatureSet.save` wrote.

    Raises:
        WeightsError: If the file is missing, damaged, or no file of features.
    """
    if not Path(path).is_file():
        raise WeightsError(f"{path} is no file: give a file that was written by videomae's feature extraction")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            if metadata is None:
                raise WeightsError(f"{path} holds no features of videomae: give a file that its extraction wrote")
            videos = []
            for number, name in enumerate(metadata["paths"]):
                prefix = f"{number:05d}:{name}"
                tensors = [
                    file.get_tensor(f"{prefix}/{kind}") for kind in ("features", "time_spans", "frame_indices")
                ]
                videos.append(VideoFeatures(name, *tensors))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {str(error).splitlines()[0]}") from None
    return FeatureSet(
        model=metadata["model"],
        pooling=metadata["pooling"],
        clip=ClipConfig(**metadata["clip"]),
        step_frames=metadata["step_frames"],
        videos=tuple(videos),
    )


def extract_features(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    *,
    pooling: Pooling = "clip",
    step_frames: int | None = None,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
) -> FeatureSet:
    """Compute the features of videos.

    Args:
        source: Folder of any network or of a finished run, weights file, or Hub name.
        videos: Files, and folders of them of any depth.
        pooling: Which vectors; see the head of this file.
        step_frames: None for one clip from the middle of each video; else clips that start this many frames apart
            and together cover the whole video.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute; always in float32.

    Returns:
        The features of all videos that could be read, and the names of the others. All are kept in memory: a clip's
        tokens take 4.8 MB for the base network and 16 frames.

    Raises:
        WeightsError: If the source cannot be loaded.
        ConfigError: If a setting is out of range or does not fit the network.
    """
    if pooling not in get_args(Pooling):
        raise ConfigError(f"pooling is {pooling!r}; choose one of {', '.join(get_args(Pooling))}")
    if step_frames is not None and step_frames < 1:
        raise ConfigError(f"step_frames is {step_frames}; clips must move on by at least 1 frame")
    loaded = load_encoder(source, clip=clip, device=device)
    good: list[VideoFeatures] = []
    bad: list[BadVideo] = []
    for item in list_videos(videos):
        if isinstance(item, BadVideo):
            bad.append(item)
            continue
        try:
            good.append(video_features(loaded, item, pooling=pooling, step_frames=step_frames))
        except VideoReadError as error:
            bad.append(BadVideo(str(item), str(error)))
    return FeatureSet(loaded.source, pooling, loaded.clip, step_frames, tuple(good), tuple(bad))


def video_features(
    loaded: Encoder, path: str | os.PathLike[str], *, pooling: Pooling, step_frames: int | None = None
) -> VideoFeatures:
    """Compute the features of one video; see `extract_features`.

    Raises:
        VideoReadError: If the video cannot be read.
    """
    with VideoReader(path) as reader:
        if step_frames is None:
            indices = centre_clip(len(reader), loaded.clip)[None]
        else:
            indices = sliding_clips(len(reader), loaded.clip, step_frames=step_frames)  # [W, T]
        rows = torch.stack([_clip_rows(loaded, frames, pooling) for frames in _clips(reader, indices)])
        times, ends = frame_times(reader.timestamps_seconds, reader.info.frame_rate)
    first, last = times[indices], ends[indices]  # [W, T]; frame numbers ascend within a clip
    size = loaded.model.config.tubelet_size
    spans = torch.from_numpy(_time_spans(pooling, first, last, tubelet_size=size, num_rows=rows.shape[1]))
    numbers = torch.from_numpy(indices)
    if step_frames is None:
        rows, spans, numbers = rows[0], spans[0], numbers[0]
    return VideoFeatures(os.fspath(path), rows, spans, numbers)


def frame_times(seconds: FloatArray, frame_rate: float | None) -> tuple[FloatArray, FloatArray]:
    """Return when each frame of a video appears and when the next replaces it, `[n]` each.

    The last frame stays for as long as the median of the others, or as the frame rate says of a single frame; 0
    where nothing is known.
    """
    if len(seconds) > 1:
        last = float(np.median(np.diff(seconds)))
    else:
        last = 1.0 / frame_rate if frame_rate else 0.0
    return seconds, np.append(seconds[1:], seconds[-1] + last)


@torch.inference_mode()
def _clip_rows(loaded: Encoder, frames: NDArray[np.uint8], pooling: Pooling) -> Tensor:
    """Return the rows of one clip `[T, H, W, 3]`, float32 on the CPU."""
    model = loaded.model
    encoder = model.videomae if isinstance(model, VideoMAEForVideoClassification) else model
    pixel_values = loaded.processor(frames, return_tensors="pt", input_data_format="channels_last").pixel_values
    pixel_values = pixel_values.to(model.device)
    states = encode(encoder, pixel_values).last_hidden_state  # [1, N, D], CLS in front
    tokens = states[0, 1:] if model.config.use_cls_token else states[0]  # [N, D]
    grid = encoder.embeddings.grid_of(pixel_values)
    tubelets = rearrange(tokens, "(t p) d -> t p d", t=grid.frames)
    match pooling:
        case "token":
            rows = tokens
        case "tubelet":
            rows = tubelets.mean(dim=1)  # [t, D]
        case "frame":
            rows = repeat(tubelets.mean(dim=1), "t d -> (t a) d", a=model.config.tubelet_size)  # [T, D]
        case "clip":
            pooled = model.features(states)[0] if isinstance(model, VideoMAEForVideoClassification) else None
            rows = tokens.mean(dim=0) if pooled is None else pooled  # [D]
    return rows.float().cpu()


def _clips(reader: VideoReader, indices: IntArray) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of each clip, one clip in memory at a time."""
    for row in indices:
        yield reader.frames(row)


def _time_spans(
    pooling: Pooling, starts: FloatArray, ends: FloatArray, *, tubelet_size: int, num_rows: int
) -> FloatArray:
    """Return when each row of each clip starts and ends, `[W, ..., 2]`, from the times of its frames, `[W, T]`.

    A row of several frames lasts from the start of the first to the end of the last.
    """
    tubelets = np.stack([starts[:, ::tubelet_size], ends[:, tubelet_size - 1 :: tubelet_size]], axis=-1)  # [W, t, 2]
    match pooling:
        case "token":
            return np.repeat(tubelets, num_rows // tubelets.shape[1], axis=1)  # [W, N, 2]
        case "tubelet":
            return tubelets
        case "frame":
            return np.stack([starts, ends], axis=-1)  # [W, T, 2]
        case "clip":
            return np.stack([starts[:, 0], ends[:, -1]], axis=-1)  # [W, 2]


def _text(path: str) -> str:
    """Return a path as text; bytes that are none, which Python keeps as surrogates, become question marks."""
    return path.encode("utf-8", "replace").decode("utf-8")
