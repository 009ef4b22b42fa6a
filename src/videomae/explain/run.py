"""`videomae explain`: overlays of one clip, as a picture and as a video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from videomae.atomic import atomic_file
from videomae.data.datasets import BadVideo
from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError, RunError, VideoReadError
from videomae.explain.attributions import gradient_attention, occlusion, rollout
from videomae.explain.configs import METHODS, Method
from videomae.explain.overlay import enlarged, overlaid
from videomae.inference.clips import clip_batches, normalized
from videomae.inference.files import PLACEHOLDER, check_name_for_each, check_output, list_inputs, output_names
from videomae.inference.loaded import LoadedModel, load_encoder
from videomae.inference.strip import StripRow, draw_strip
from videomae.inference.windows import open_as_far_as_whole
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
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
    fault: str | None = None
    """Why the video was not read to its end, so that this is the middle of a part of it; None: it was."""


class Explained(NamedTuple):
    """A video whose overlays are written."""

    explanation: Explanation
    """What is in them."""
    files: list[Path]
    """The image, and the video where there is one."""


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
    with open_as_far_as_whole(video, fps=loaded.clip.fps) as (reader, fault):
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
    return Explanation(os.fspath(video), label, probability, frames, seconds, heat, fault)


def explain_files(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    output: str,
    *,
    overlay_video: str | None = None,
    label: str | None = None,
    methods: Sequence[Method] | None = None,
    device: DeviceName = "auto",
) -> Iterator[Explained | BadVideo]:
    """Explain videos, and write of each an image, `.png`, and where asked a video of the overlays side by side.

    Args:
        source: The model.
        videos: Files, folders of them, manifests, addresses.
        output: Name of the image; of several videos with `{video}` in it.
        overlay_video: Name of the video, likewise.
        label: As for `explain`.
        methods: Likewise.
        device: Where to compute.

    Yields:
        Each when its files are complete, or why it cannot be read.

    Raises:
        WeightsError: If the model cannot be loaded.
        ConfigError: As `explain`, or if an output cannot be.
        RunError: If an output cannot be written.
    """
    items = list(list_inputs(videos))
    for option, name, suffix in (("out", output, ".png"), ("video_out", overlay_video, "")):
        if name is not None:
            check_name_for_each(option, name, len(items))
            check_output(name.replace(PLACEHOLDER, "video"), suffix=suffix)
    if overlay_video is not None and Path(overlay_video).suffix not in CONTAINER_FORMATS:
        raise ConfigError(f"video is {overlay_video!r}; its name must end with one of {', '.join(CONTAINER_FORMATS)}")
    names = [os.fspath(item) for item in items if not isinstance(item, BadVideo)]
    images = output_names(output, names)
    overlays = {} if overlay_video is None else output_names(overlay_video, names)
    loaded = load_encoder(source, device=device)
    for item in items:
        if isinstance(item, BadVideo):
            yield item
            continue
        name = os.fspath(item)
        try:
            result = explain(loaded, name, label=label, methods=methods)
        except VideoReadError as error:
            yield BadVideo(name, str(error))
            continue
        files = [Path(images[name]), *([Path(overlays[name])] if overlays else [])]
        _write(result, files, title=Path(source).resolve().name)
        yield Explained(result, files)


def _write(result: Explanation, files: Sequence[Path], *, title: str) -> None:
    image, *overlay = files
    try:
        with atomic_file(image) as stream:
            explanation_strip(result, title=title).save(stream, "PNG")
        for path in overlay:
            write_video(path, side_by_side(result), frame_rate=_frame_rate(result) / SLOWER)
    except OSError as error:
        names = " or ".join(map(str, files))
        raise RunError(f"{names} cannot be written ({error.strerror or error}): free space") from None


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
