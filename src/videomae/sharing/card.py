"""The model card: what the Hub shows about a network, told from its record and nothing else.

What the record does not say is not on the card: there are no sections to be filled in later. Pure functions of
values; knows nothing of files or of the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from videomae.model.config import VideoMAEConfig
from videomae.weights.architecture import describe

TASKS = {
    "VideoMAEForVideoClassification": "video-classification",
    "VideoMAEForPreTraining": "video-masked-autoencoding",
    "VideoMAEModel": "feature-extraction",
}
PIPELINE_TASKS = ("video-classification", "feature-extraction")  # those of them that the Hub knows
MOST_CLASSES = 60  # named on a card; config.json has all
PATH_SETTINGS = ("train", "val", "init")  # of a recipe: places on the author's machine
PERCENT = ("top1", "top5", "mean_class")


def render_card(
    record: Mapping[str, Any],
    config: VideoMAEConfig,
    *,
    architecture: str,
    name: str,
    num_parameters: int | None = None,
) -> str:
    """Return the card of a network, Markdown with the Hub's metadata before it.

    Args:
        record: The contents of its `videomae.json`; may be empty.
        config: Its configuration.
        architecture: Name of the model class.
        name: `owner/name`.
        num_parameters: How many values it has.
    """
    training = _mapping(record.get("training"))
    licence = record.get("licence", training.get("licence"))
    sections = [
        _front_matter(licence, architecture, training, name),
        f"# {name.split('/')[-1]}",
        _summary(config, architecture, training, num_parameters),
        _use(architecture, name),
        _sampling(record, config),
        _training(training),
        _metrics(record, training),
        _classes(config) if architecture == "VideoMAEForVideoClassification" else "",
        _licence(licence),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def shareable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record whose paths on the author's machine are cut to their last names."""

    def cut(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: cut(value)
            if isinstance(value, Mapping)
            else PurePath(value).name
            if key in PATH_SETTINGS and isinstance(value, str)
            else value
            for key, value in values.items()
        }

    copied = cut(record)
    training = copied.get("training")
    if isinstance(training, dict) and isinstance(training.get("videos_left_out"), dict):
        reasons = training["videos_left_out"]
        training["videos_left_out"] = {PurePath(path).name: "could not be read" for path in reasons}
    return copied


def _front_matter(licence: Any, architecture: str, training: Mapping[str, Any], name: str) -> str:
    lines = ["---", "library_name: videomae"]
    if licence:
        lines.append(f"license: {json.dumps(str(licence))}")
    if TASKS.get(architecture) in PIPELINE_TASKS:
        lines.append(f"pipeline_tag: {TASKS[architecture]}")
    lines += ["tags:", "- videomae", "- video"]
    evaluation = _mapping(training.get("evaluation"))
    if isinstance(evaluation.get("top1"), int | float):
        lines += [
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            "  - task:",
            "      type: video-classification",
            "    dataset:",
            f"      name: {json.dumps(_data_name(training))}",
            f"      type: {json.dumps(_data_name(training))}",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {float(evaluation['top1'])}",
        ]
    return "\n".join([*lines, "---"])


def _summary(
    config: VideoMAEConfig, architecture: str, training: Mapping[str, Any], num_parameters: int | None
) -> str:
    what = {
        "VideoMAEForVideoClassification": f"A VideoMAE video classifier of {config.num_labels} classes",
        "VideoMAEForPreTraining": "A VideoMAE network pre-trained by masked autoencoding, encoder and decoder",
    }.get(architecture, "A VideoMAE video encoder")
    sizes = {field: getattr(config, field) for field in vars(config)}
    height, width = config.image_height_width
    size = f"{num_parameters / 1e6:.1f} million parameters, " if num_parameters else ""
    text = (
        f"{what}: {describe(sizes)}; {size}clips of {config.num_frames} frames of {height} x {width} pixels, "
        f"{config.num_channels} channel(s)."
    )
    version = training.get("videomae_version")
    return f"{text} Trained with videomae {version}." if version else text


def _use(architecture: str, name: str) -> str:
    return (
        "## Use\n\n```python\n"
        f"from videomae import {architecture}, VideoMAEImageProcessor\n\n"
        f"model = {architecture}.from_pretrained({name!r})\n"
        f"processor = VideoMAEImageProcessor.from_pretrained({name!r})\n```\n\n"
        "transformers reads the same files with its classes of the same names."
    )


def _sampling(record: Mapping[str, Any], config: VideoMAEConfig) -> str:
    clip = _mapping(record.get("clip"))
    if not clip:
        return ""
    frames, stride = clip.get("num_frames", config.num_frames), clip.get("stride")
    how = {
        "dense": f"{frames} frames, one in {stride}, from one stretch of the video",
        "segment": f"{frames} frames, one from each of {frames} equal parts of the video",
    }.get(str(clip.get("kind")), f"{frames} frames")
    return f"## Frame sampling\n\nTrained on clips of {how}. Sample alike when using it."


def _training(training: Mapping[str, Any]) -> str:
    if not training:
        return ""
    rows = []
    for key, title in (
        ("stage", "stage"),
        ("steps", "optimiser steps"),
        ("data_fingerprint", "data fingerprint (SHA-256 of names, sizes and labels)"),
        ("torch_version", "torch"),
    ):
        if training.get(key) is not None:
            rows.append(f"| {title} | `{training[key]}` |")
    if training.get("data_fingerprint") is not None:
        rows.insert(0, f"| data | `{_data_name(training)}` |")
    left_out = training.get("videos_left_out")
    if isinstance(left_out, Mapping):
        rows.append(f"| videos that could not be read | {len(left_out)} |")
    text = "## Training\n\n| | |\n|---|---|\n" + "\n".join(rows)
    recipe = _mapping(training.get("recipe"))
    if recipe:
        shown = json.dumps(shareable(recipe), indent=2, sort_keys=True, default=str)
        text += f"\n\nThe recipe:\n\n```json\n{shown}\n```"
    return text


def _metrics(record: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    evaluation = _mapping(training.get("evaluation"))
    rows = [
        f"| {key} | {value:.2%} |" if key in PERCENT else f"| {key} | {value} |"
        for key, value in evaluation.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if not rows:
        return ""
    interval = _mapping(evaluation.get("top1_interval"))
    if {"low", "high"} <= interval.keys():
        rows.insert(1, f"| top1, 95 % interval | {interval['low']:.1%} to {interval['high']:.1%} |")
    return f"## Results\n\n{_protocol(record, training)}\n\n| metric | value |\n|---|---|\n" + "\n".join(rows)


def _protocol(record: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    views = _mapping(_mapping(_mapping(training.get("recipe")).get("evaluation")).get("views"))
    clip = _mapping(record.get("clip"))
    parts = []
    if views:
        parts.append(f"{views.get('num_clips')} clip(s) and {views.get('num_crops')} crop(s) of each video")
    if clip:
        parts.append(f"{clip.get('num_frames')} frames, stride {clip.get('stride')}")
    protocol = "Protocol: " + ", ".join(parts) if parts else "The record does not name the protocol"
    return f"{protocol}. Measured once, on the validation videos of the run, with the final weights."


def _classes(config: VideoMAEConfig) -> str:
    names = [config.id2label[number] for number in range(config.num_labels)]
    shown = ", ".join(f"`{name}`" for name in names[:MOST_CLASSES])
    rest = f", and {len(names) - MOST_CLASSES} more in `config.json`" if len(names) > MOST_CLASSES else ""
    return f"## Classes\n\n{shown}{rest}"


def _licence(licence: Any) -> str:
    if licence:
        return f"## Licence\n\n`{licence}`"
    return "## Licence\n\nIts author has stated none. Without one, ask before you use it."


def _data_name(training: Mapping[str, Any]) -> str:
    path = _mapping(_mapping(training.get("recipe")).get("data")).get("train")
    return PurePath(str(path)).name if path else "unnamed data"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
