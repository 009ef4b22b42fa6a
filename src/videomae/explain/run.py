"""`videomae explain`: overlays of one clip, as a picture and as a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from videomae.atomic import atomic_file
from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError, RunError
from videomae.explain.attributions import gradient_attention, occlusion, rollout
from videomae.explain.configs import METHODS, Method
from videomae.explain.overlay import enlarged, overlaid
from videomae.inference.clips import clip_batches, normalized
from videomae.inference.files import check_output
from videomae.inference.loaded import LoadedModel, load_encoder
from videomae.inference.strip import StripRow, draw_strip
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.video.opening import open_reader
from videomae.video.sampling import clip_indices
from videomae.video.write import CONTAINER_FORMATS, write_video

Frames = NDArray[np.uint8]
MAX_COLUMNS = 8  # frames in a picture
SLOWER = 2  # the video plays the clip at half its speed: a second or two is soon over
ABOUT = {
    "rollout": "attention rollout: what flows through attention, for no class",
    "gradient": "gradient times attention",
    "occlusion": "occlusion: what the class loses where it is hidden",
}


@dataclass(frozen=True)
class Explanation:
    """Where a decision about one clip comes from."""

    path: str
    """The video."""
    label: str | None
    """The class that is explained; None for a model without classes."""
    probability: float | None
    """Of that class."""
    frames: Frames
    """`[T, H, W, 3]`, the clip as the model gets it."""
    seconds: NDArray[np.float64]
    """`[T]`, their times from the start of the video."""
    heat: dict[Method, Tensor]
    """By method, float32 `[t, h, w]`, at least 0."""


def explain(
    loaded: LoadedModel[VideoMAEModel] | LoadedModel[VideoMAEForVideoClassification],
    video: str | os.PathLike[str],
    *,
    label: str | None = None,
    methods: Sequence[Method] | None = None,
) -> Explanation:
    """Explain what a model says of the middle clip of a video.

    Args:
        loaded: A classifier; of another model only rollout can be had.
        video: The video, or a part of it, `clip.mp4#t=3,5`.
        label: The class to explain; None: the most probable.
        methods: Which maps; None: all that the model allows.

    Raises:
        ConfigError: If a method or class is unknown, or the model has no classes.
        VideoReadError: If the video cannot be read.
    """
    model = loaded.model
    has_classes = isinstance(model, VideoMAEForVideoClassification)
    chosen = list(methods) if methods else list(METHODS if has_classes else METHODS[:1])
    for method in chosen:
        if method not in METHODS:
            raise ConfigError(f"method is {method!r}; choose among {', '.join(METHODS)}")
        if method != "rollout" and not has_classes:
            raise ConfigError(
                f"method is {method}, which explains a class, and {loaded.source} has none: give a fine-tuned "
                "classifier, or --methods rollout"
            )
    if label is not None and (not has_classes or label not in loaded.classes):
        known = ", ".join(loaded.classes) if has_classes else "none"
        raise ConfigError(f"label is {label!r}, and the classes of {loaded.source} are: {known}; choose one of them")
    with open_reader(video, fps=loaded.clip.fps) as reader:
        indices = clip_indices(len(reader), loaded.clip)  # [1, T]
        (clip,) = clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=1)
        seconds = reader.timestamps_seconds[indices[0]]
    pixel_values = normalized(clip, loaded.processor, device=model.device, num_channels=model.config.num_channels)
    heat: dict[Method, Tensor] = {}
    probability = None
    label_id = 0
    if isinstance(model, VideoMAEForVideoClassification):
        with torch.no_grad():
            probabilities = model(pixel_values).logits[0].float().softmax(dim=0)
        label_id = int(probabilities.argmax()) if label is None else loaded.classes.index(label)
        label, probability = loaded.classes[label_id], float(probabilities[label_id])
    encoder = model.videomae if isinstance(model, VideoMAEForVideoClassification) else model
    for method in chosen:
        if method == "rollout":
            heat[method] = rollout(encoder, pixel_values)
        elif isinstance(model, VideoMAEForVideoClassification):
            compute = gradient_attention if method == "gradient" else occlusion
            heat[method] = compute(model, pixel_values, label_id)
    frames = np.ascontiguousarray(clip[0].permute(0, 2, 3, 1).numpy())
    return Explanation(os.fspath(video), label, probability, frames, seconds, heat)


def explain_file(
    source: str | os.PathLike[str],
    video: str | os.PathLike[str],
    output: Path,
    *,
    overlay_video: Path | None = None,
    label: str | None = None,
    methods: Sequence[Method] | None = None,
    device: DeviceName = "auto",
) -> Explanation:
    """Explain a video and write a picture, `.png`, and where asked a video of the overlays side by side.

    Raises:
        WeightsError: If the model cannot be loaded.
        ConfigError: As `explain`, or if an output cannot be.
        VideoReadError: If the video cannot be read.
        RunError: If an output cannot be written.
    """
    check_output(output, suffix=".png")
    if overlay_video is not None:
        check_output(overlay_video)
        if overlay_video.suffix not in CONTAINER_FORMATS:
            raise ConfigError(
                f"video is {str(overlay_video)!r}; its name must end with one of {', '.join(CONTAINER_FORMATS)}"
            )
    result = explain(load_encoder(source, device=device), video, label=label, methods=methods)
    try:
        with atomic_file(output) as stream:
            explanation_strip(result, title=Path(source).resolve().name).save(stream, "PNG")
        if overlay_video is not None:
            write_video(overlay_video, side_by_side(result), frame_rate=_frame_rate(result) / SLOWER)
    except OSError as error:
        raise RunError(f"cannot write {output} or {overlay_video}: {error.strerror or error}") from None
    return result


def explanation_strip(result: Explanation, *, title: str) -> Image.Image:
    """Draw the clip and its overlays below each other."""
    count = len(result.frames)
    chosen = np.linspace(0, count - 1, min(count, MAX_COLUMNS)).round().astype(np.int64)
    rows = [StripRow("the clip, as the model gets it", enlarged(result.frames)[chosen])]
    rows += [StripRow(ABOUT[name], overlaid(result.frames, heat)[chosen]) for name, heat in result.heat.items()]
    name = result.path.replace("\\", "/").rpartition("/")[2]
    said = "no classes" if result.label is None else f"{result.label}, {result.probability:.1%}"
    return draw_strip(
        rows, heading=[f"{title}: {name}", said], columns=[f"{one:.2f} s" for one in result.seconds[chosen]]
    )


def side_by_side(result: Explanation) -> Frames:
    """Return the clip and its overlays beside each other, `[T, H, W', 3]`."""
    parts = [enlarged(result.frames), *(overlaid(result.frames, heat) for heat in result.heat.values())]
    return np.concatenate(parts, axis=2)


def _frame_rate(result: Explanation) -> float:
    spacing = float(np.median(np.diff(result.seconds))) if len(result.seconds) > 1 else 0.0
    return min(max(1.0 / spacing if spacing > 0 else 12.5, 1.0), 60.0)
