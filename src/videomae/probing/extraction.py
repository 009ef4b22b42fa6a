"""Frozen features of videos, each computed once: one small file a video, kept under what it depends on.

Of the middle clip of a video, the one that `Predictor` takes for one view, two things are kept: what a classifier's
last layer sees, `[D]` float32, and the tokens, averaged over at most 4 x 4 positions of each time slice and
normalized before, `[t, p, D]` float16.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from videomae.atomic import atomic_file
from videomae.data.datasets import BadVideo
from videomae.data.manifest import Manifest, VideoRow
from videomae.engine.precision import DeviceName
from videomae.engine.progress import TrainingProgress
from videomae.errors import RunError, VideoReadError
from videomae.inference.clips import clip_batches, normalized
from videomae.inference.loaded import LoadedModel, load_encoder
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import encode
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader, version_of
from videomae.video.sampling import ClipConfig, clip_indices

MAX_SIDE = 4  # positions kept along each side of a time slice
FORMAT = 1  # part of every key: raised when the content of a file changes its meaning
MAX_BAD_FRACTION = 0.05  # as in training

Frozen = LoadedModel[VideoMAEForVideoClassification]


@dataclass(frozen=True)
class Features:
    """What was computed, in the order of the videos asked for."""

    pooled: NDArray[np.float64]
    """`[n, D]`, what a classifier's last layer sees."""
    tokens: Tensor
    """`[n, t, p, D]` float16."""
    good: NDArray[np.bool_]
    """`[m]`, which of the m videos asked for could be read: n of them."""
    bad: tuple[BadVideo, ...]
    """The others, with reasons."""
    num_cached: int
    """Videos whose features were on disk already."""


def load_frozen(
    source: str | os.PathLike[str], classes: Sequence[str], *, clip: ClipConfig | None, device: DeviceName
) -> Frozen:
    """Load a model as a classifier of these classes, whose last layer has yet to be filled in.

    A classifier keeps its own pooling and norm; any other model gets mean pooling and a norm without weights.

    Args:
        source: Folder of any model or of a finished run, weights file, Hub name, or `default`.
        classes: K class names.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.

    Raises:
        WeightsError: If there is nothing to load, or it is damaged.
        ConfigError: If the clip does not fit the model, or the device is not there.
    """
    encoder = load_encoder(source, clip=clip, device=device)
    keeps_pooling = isinstance(encoder.model, VideoMAEForVideoClassification) or encoder.model.config.use_cls_token
    pooling: dict[str, Any] = {} if keeps_pooling else {"use_mean_pooling": True}
    with warnings.catch_warnings():
        # The head is random until the probe's weights are in it, and load_encoder has told the rest.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"videomae\.")
        model = VideoMAEForVideoClassification.from_pretrained(
            os.fspath(source), fresh_head=True, id2label=dict(enumerate(classes)), problem_type=None, **pooling
        )
    return LoadedModel(encoder.source, model.to(encoder.model.device).eval(), encoder.processor, encoder.clip)


def model_key(loaded: Frozen) -> str:
    """Return a name for everything but the video that its features depend on."""
    digest = sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        if not name.startswith("classifier."):
            digest.update(name.encode("utf-8"))
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config = loaded.model.config
    shape = {name: getattr(config, name) for name in ("num_attention_heads", "layer_norm_eps", "hidden_act")}
    settings = [FORMAT, MAX_SIDE, asdict(loaded.clip), loaded.processor.to_dict(), shape]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode("utf-8"))
    return digest.hexdigest()[:20]


def video_key(manifest: Manifest, row: VideoRow) -> str:
    """Return a name for the file of a video, by its path in the data set, its size and its time of change."""
    state = version_of(row.path) or (-1, -1)  # reading it will tell
    text = repr((manifest.relative_path(row), *state))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cache_files(loaded: Frozen, manifest: Manifest, cache: Path) -> list[Path]:
    """Return where the features of each video are kept."""
    folder = cache / model_key(loaded)
    return [folder / f"{video_key(manifest, row)}.safetensors" for row in manifest.rows]


def extract(loaded: Frozen, manifest: Manifest, files: Sequence[Path], *, workers: int) -> Features:
    """Compute the features that are not on disk yet, and read the others.

    Each video's file is written as soon as it is computed, so that an interrupted extraction goes on where it was.

    Args:
        loaded: The model.
        manifest: The videos.
        files: Where the features of each are kept, from `cache_files`.
        workers: Threads that read videos.

    Raises:
        RunError: If more than 5 % of the videos cannot be read, or a file cannot be written.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for number, file in enumerate(files):
        stored = _stored(file)
        if stored is not None:
            found[number] = stored
    num_cached, bad = len(found), list[BadVideo]()
    missing = [number for number in range(len(files)) if number not in found]
    if missing:
        with TrainingProgress("features", total_steps=len(missing)) as progress:
            paths = [manifest.rows[number].source for number in missing]
            clips = _clips(loaded, paths, workers, manifest.index_store())
            for done, (number, clip) in enumerate(zip(missing, clips, strict=True), start=1):
                if isinstance(clip, VideoReadError):
                    bad.append(BadVideo(manifest.relative_path(manifest.rows[number]), str(clip)))
                else:
                    found[number] = clip_features(loaded, clip)
                    _write(files[number], found[number])
                progress.update(done, num_clips=1)
    _check_bad(bad, len(files))
    rows = [found[number] for number in range(len(files)) if number in found]
    return Features(
        pooled=torch.stack([row["pooled"] for row in rows]).double().numpy(),
        tokens=torch.stack([row["tokens"] for row in rows]),
        good=np.asarray([number in found for number in range(len(files))]),
        bad=tuple(bad),
        num_cached=num_cached,
    )


@torch.inference_mode()
def clip_features(loaded: Frozen, clip: Tensor) -> dict[str, Tensor]:
    """Return `pooled` and `tokens` of one clip, uint8 `[1, T, C, h, w]` from `clip_batches`."""
    model = loaded.model
    channels = model.config.num_channels
    pixel_values = normalized(clip, loaded.processor, device=model.device, num_channels=channels).to(model.dtype)
    states = encode(model.videomae, pixel_values).last_hidden_state  # [1, N, D], CLS in front
    tokens = states[:, 1:] if model.config.use_cls_token else states
    grid = model.videomae.embeddings.grid_of(pixel_values)
    tokens = F.layer_norm(tokens.float(), tokens.shape[-1:])
    planes = rearrange(tokens, "1 (t h w) d -> t d h w", t=grid.frames, h=grid.height, w=grid.width)
    pooled = F.adaptive_avg_pool2d(planes, (min(grid.height, MAX_SIDE), min(grid.width, MAX_SIDE)))
    return {
        "pooled": model.features(states)[0].float().cpu(),  # [D]
        "tokens": rearrange(pooled, "t d h w -> t (h w) d").half().cpu().contiguous(),  # [t, p, D]
    }


def _clips(
    loaded: Frozen, paths: Sequence[Path], workers: int, store: IndexStore | None
) -> Iterator[Tensor | VideoReadError]:
    """Yield the middle clip of each video, or why there is none, in order, read a little ahead."""

    def read(path: Path) -> Tensor | VideoReadError:
        try:
            with open_reader(path, store=store, fps=loaded.clip.fps) as reader:
                indices = clip_indices(len(reader), loaded.clip)  # [1, T]
                return next(clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=1))
        except VideoReadError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    try:
        rest = iter(paths)
        waiting: deque[Future[Tensor | VideoReadError]] = deque()
        for path in islice(rest, 2 * workers):
            waiting.append(pool.submit(read, path))
        while waiting:
            yield waiting.popleft().result()
            for path in islice(rest, 1):
                waiting.append(pool.submit(read, path))
    finally:
        pool.shutdown(cancel_futures=True)


def _check_bad(bad: Sequence[BadVideo], total: int) -> None:
    if len(bad) > MAX_BAD_FRACTION * total:
        raise RunError(
            f"{len(bad)} of {total} videos cannot be read, more than {MAX_BAD_FRACTION:.0%}; the first is "
            f"{bad[0].path} ({bad[0].reason}): repair or remove them"
        )


def _stored(file: Path) -> dict[str, Tensor] | None:
    """Return the features in a file; None where there is no such file, or not a whole one."""
    try:
        found = load(file.read_bytes())
    except (OSError, SafetensorError):
        return None
    return found if set(found) == {"pooled", "tokens"} else None


def _write(file: Path, features: dict[str, Tensor]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as stream:
            stream.write(save(features))
    except OSError as error:
        raise RunError(
            f"cannot write {file}: {error.strerror or error}; free space, or choose another folder with --cache"
        ) from None
