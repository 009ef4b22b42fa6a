"""The model card: what the Hub shows about a model, told from its record and nothing else.

What the record does not say is not on the card: there are no sections to be filled in later. The metadata before the
text are written by `huggingface_hub`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from videomae.sharing.record import EvaluationSummary, ModelRecord, TrainingRecord
from videomae.video.sampling import ClipConfig
from videomae.weights.architecture import describe
from videomae.weights.configs import ModelConfig
from videomae.weights.kinds import ModelKind

MAX_CLASSES = 60  # named on a card; config.json has all
PATH_SETTINGS = ("train", "val", "init")  # of a recipe: places on the author's machine


def render_card(
    record: ModelRecord,
    config: ModelConfig,
    *,
    kind: ModelKind,
    name: str,
    num_parameters: int | None = None,
) -> str:
    """Return the card of a model, Markdown with the Hub's metadata before it.

    Args:
        record: The contents of its `videomae.json`; may be empty.
        config: Its configuration.
        kind: What it is.
        name: `owner/name`.
        num_parameters: How many values it has.
    """
    sections = [
        _metadata(record, kind, name),
        f"# {name.split('/')[-1]}",
        _summary(record, config, kind, num_parameters),
        _use(kind, name),
        _sampling(record.sampling),
        _training(record.training),
        _results(record),
        _classes(config) if kind.has_classes else "",
        _licence(record.licence),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def shareable(record: ModelRecord) -> ModelRecord:
    """Return a record whose paths on the author's machine are cut to their last names."""
    values = _without_paths(record.to_dict())
    training = values.get("training")
    if isinstance(training, dict) and isinstance(training.get("videos_left_out"), dict):
        reasons = training["videos_left_out"]
        training["videos_left_out"] = {PurePath(path).name: "could not be read" for path in reasons}
        # Videos of several folders may share a name.
        training.setdefault("num_videos_left_out", len(reasons))
    return ModelRecord.from_dict(values)


def _without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_paths(value)
        if isinstance(value, Mapping)
        else PurePath(value).name
        if key in PATH_SETTINGS and isinstance(value, str)
        else value
        for key, value in values.items()
    }


def _metadata(record: ModelRecord, kind: ModelKind, name: str) -> str:
    # The import takes a third of a second, which saving a model need not wait for.
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if record.evaluation is not None and record.evaluation.top1 is not None:
        data = _data_name(record.training)
        results = [
            EvalResult(
                task_type="video-classification",
                dataset_type=data,
                dataset_name=data,
                metric_type="accuracy",
                metric_value=record.evaluation.top1,
            )
        ]
    metadata = ModelCardData(
        library_name="videomae",
        license=record.licence,
        pipeline_tag=kind.task or None,
        tags=["videomae", "video"],
        model_name=name if results else None,
        eval_results=results,
    )
    return f"---\n{metadata.to_yaml()}\n---"


def _summary(record: ModelRecord, config: ModelConfig, kind: ModelKind, num_parameters: int | None) -> str:
    what = f"{kind.summary} of {config.num_labels} classes" if kind.has_classes else kind.summary
    height, width = config.image_height_width
    size = f"{num_parameters / 1e6:.1f} million parameters, " if num_parameters else ""
    text = (
        f"{what}: {describe(vars(config))}; {size}clips of {config.num_frames} frames of {height} x {width} pixels, "
        f"{config.num_channels} channel(s)."
    )
    version = None if record.training is None else record.training.videomae_version
    return f"{text} Trained with videomae {version}." if version else text


def _use(kind: ModelKind, name: str) -> str:
    return (
        "## Use\n\n```python\n"
        f"from videomae import {kind.class_name}, VideoMAEImageProcessor\n\n"
        f"model = {kind.class_name}.from_pretrained({name!r})\n"
        f"processor = VideoMAEImageProcessor.from_pretrained({name!r})\n```\n\n"
        "transformers reads the same files with its classes of the same names."
    )


def _sampling(clip: ClipConfig | None) -> str:
    if clip is None:
        return ""
    how = {
        "dense": f"{clip.num_frames} frames, one in {clip.stride}, from one stretch of the video",
        "segment": f"{clip.num_frames} frames, one from each of {clip.num_frames} equal parts of the video",
        "original": f"{clip.num_frames} frames, about one in {clip.stride}, as the original's loaders take them",
    }[clip.kind]
    return f"## Frame sampling\n\nTrained on clips of {how}. Sample alike when using it."


def _training(training: TrainingRecord | None) -> str:
    if training is None:
        return ""
    rows = [
        ("data", None if training.data_fingerprint is None else _data_name(training)),
        ("stage", training.stage),
        ("optimizer steps", training.steps),
        ("data fingerprint (SHA-256 of names, sizes and labels)", training.data_fingerprint),
        ("torch", training.torch_version),
    ]
    lines = [f"| {title} | `{value}` |" for title, value in rows if value is not None]
    if training.num_videos_left_out is not None:
        lines.append(f"| videos that could not be read | {training.num_videos_left_out} |")
    text = "## Training\n\n| | |\n|---|---|\n" + "\n".join(lines)
    if training.recipe:
        shown = json.dumps(_without_paths(training.recipe), indent=2, sort_keys=True, default=str)
        text += f"\n\nThe recipe:\n\n```json\n{shown}\n```"
    return text


def _results(record: ModelRecord) -> str:
    if record.evaluation is None:
        return ""
    rows = [f"| {title} | {value} |" for title, value in _figures(record.evaluation)]
    if not rows:
        return ""
    return f"## Results\n\n{_protocol(record)}\n\n| metric | value |\n|---|---|\n" + "\n".join(rows)


def _figures(evaluation: EvaluationSummary) -> list[tuple[str, str]]:
    """Return titles and values of what is known."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    def count(value: int | None) -> str:
        return "" if value is None else str(value)

    interval = evaluation.top1_interval
    rows = [
        ("top-1 accuracy", percent(evaluation.top1)),
        ("top-1 accuracy, 95 % interval", "" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"),
        ("top-5 accuracy", percent(evaluation.top5)),
        ("mean class accuracy", percent(evaluation.mean_class)),
        ("videos", count(evaluation.num_videos)),
        ("videos that could not be read", count(evaluation.num_bad_videos)),
    ]
    others = [
        (name, str(value))
        for name, value in evaluation.extra.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return [(title, value) for title, value in (*rows, *others) if value]


def _protocol(record: ModelRecord) -> str:
    recipe = _mapping(record.training.recipe if record.training is not None else None)
    views = _mapping(_mapping(recipe.get("evaluation")).get("views"))
    parts = []
    if views:
        parts.append(f"{views.get('num_clips')} clip(s) and {views.get('num_crops')} crop(s) of each video")
    speed = _mapping(recipe.get("evaluation")).get("speed", 1.0)
    if speed != 1.0:
        parts.append(f"{speed:g} times fewer operations")
    if record.sampling is not None:
        parts.append(f"{record.sampling.num_frames} frames, stride {record.sampling.stride}")
    protocol = "Protocol: " + ", ".join(parts) if parts else "The record does not name the protocol"
    return f"{protocol}. Measured once, on the validation videos of the run, with the final weights."


def _classes(config: ModelConfig) -> str:
    names = [config.id2label[label_id] for label_id in range(config.num_labels)]
    shown = ", ".join(f"`{name}`" for name in names[:MAX_CLASSES])
    rest = f", and {len(names) - MAX_CLASSES} more in `config.json`" if len(names) > MAX_CLASSES else ""
    return f"## Classes\n\n{shown}{rest}"


def _licence(licence: str | None) -> str:
    if licence:
        return f"## Licence\n\n`{licence}`"
    return "## Licence\n\nIts author has stated none. Without one, ask before you use it."


def _data_name(training: TrainingRecord | None) -> str:
    path = _mapping(_mapping(training.recipe if training is not None else None).get("data")).get("train")
    return PurePath(str(path)).name if path else "unnamed data"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
