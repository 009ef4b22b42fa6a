"""`pipeline("video-classification", model=...)`: transformers' callable, with the sampling that was trained with.

It translates arguments and results; `inference.Predictor` classifies. What differs from transformers is which frames
are sampled: transformers 4 took the first half second, transformers 5 spreads them over the whole file and ignores
`frame_sampling_rate`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from videomae.compat.inputs import listed_paths
from videomae.compat.video_processor import VideoMAEVideoProcessor
from videomae.engine.precision import pick_device
from videomae.errors import ConfigError
from videomae.inference.loaded import LoadedModel
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.defaults import default_processor
from videomae.processing.image_processor import SETTINGS, VideoMAEImageProcessor, refuse_unknown
from videomae.sharing.record import PUBLISHED_CLIP, read_record
from videomae.video.sampling import ClipConfig
from videomae.weights.hub import HubOptions, split_hub_name

TASK = "video-classification"
CALL_NAMES = ("top_k", "num_frames", "frame_sampling_rate", "function_to_apply")
PROCESSOR_NAMES = ("image_processor", "video_processor", "feature_extractor")
HUB_NAMES = tuple(HubOptions.__dataclass_fields__)
Activation = Literal["softmax", "sigmoid", "none"]
FilePath = str | os.PathLike[str]
Labels = list[dict[str, Any]]


class VideoClassificationPipeline:
    """Classifies video files; made by `pipeline`.

    Args:
        predictor: Classifies.
        processor: Frames to pixel values, as it was given or stored.
        clip: How clips are sampled where a call does not say; None: as for the published models, with a warning.
        defaults: Arguments of `__call__` where a call does not give them.
    """

    def __init__(
        self,
        predictor: Predictor,
        processor: VideoMAEImageProcessor,
        clip: ClipConfig | None,
        *,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        self.task = TASK
        self.model = predictor.model
        self.processor = processor
        self.clip = clip
        self._predictor = predictor
        self._defaults = dict(defaults or {})

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    def __call__(
        self,
        inputs: FilePath | Sequence[FilePath],
        *,
        top_k: int | None = None,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        function_to_apply: Activation | None = None,
    ) -> Labels | list[Labels]:
        """Classify one file or several.

        Args:
            inputs: A path, or a list of them.
            top_k: Labels to return, most probable first; 5 where not given, and never more than there are.
            num_frames: T, frames of the clip; as the model was trained with where not given.
            frame_sampling_rate: Distance of neighbouring frames in frames of the file; as trained with where not
                given. The clip is the middle of the file.
            function_to_apply: What makes scores of logits: where not given "none" for regression, "sigmoid" for
                several labels at once, else "softmax".

        Returns:
            `[{"score": float, "label": str}]`, for a list of files a list of such lists.

        Raises:
            VideoReadError: If a file cannot be read.
            ConfigError: If an argument is out of range, or the clip does not fit the model.
            RunError: If the model's output is not finite.
        """
        given = {
            "top_k": top_k,
            "num_frames": num_frames,
            "frame_sampling_rate": frame_sampling_rate,
            "function_to_apply": function_to_apply,
        }
        chosen = {**self._defaults, **{name: value for name, value in given.items() if value is not None}}
        count = _count("top_k", chosen.get("top_k", 5))
        activation = chosen.get("function_to_apply") or self._usual_activation()
        if activation not in get_args(Activation):
            raise ConfigError(f"function_to_apply is {activation!r}; choose from {', '.join(get_args(Activation))}")
        clip = self._clip(chosen.get("num_frames"), chosen.get("frame_sampling_rate"))
        paths = listed_paths(inputs)
        if paths is None:
            raise ConfigError(
                f"inputs is a {type(inputs).__name__}; give the path of a video file, or a list of paths"
            )
        results = [self._classify(path, clip, activation, count) for path in paths]
        return results[0] if isinstance(inputs, str | os.PathLike) else results

    def _classify(self, path: str, clip: ClipConfig, activation: str, top_k: int) -> Labels:
        logits = self._predictor.view_logits(path, clip=clip).logits[0]  # [K]
        scores: Tensor = logits
        if activation != "none":
            scores = logits.softmax(dim=0) if activation == "softmax" else logits.sigmoid()
        order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        return [{"score": float(scores[number]), "label": self._predictor.classes[number]} for number in order]

    def _usual_activation(self) -> Activation:
        match self.model.config.problem_type:
            case "regression":
                return "none"
            case "multi_label_classification":
                return "sigmoid"
            case _:
                return "softmax"

    def _clip(self, num_frames: Any, stride: Any) -> ClipConfig:
        clip = self._predictor.clip
        if self.clip is None and stride is None:
            warnings.warn(
                f"nothing says how the clips of this model were sampled: assuming stride {clip.stride}; give "
                "frame_sampling_rate to choose another",
                UserWarning,
                stacklevel=3,
            )
        if num_frames is not None:
            clip = replace(clip, num_frames=_count("num_frames", num_frames))
        if stride is not None:
            clip = replace(clip, stride=_count("frame_sampling_rate", stride), kind="dense")
        return clip


def pipeline(
    task: str,
    model: FilePath | VideoMAEForVideoClassification,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    **options: Any,
) -> VideoClassificationPipeline:
    """Make a callable that classifies video files, as transformers' function of this name does.

    Args:
        task: "video-classification", the only one.
        model: A folder, a file or `owner/name` on the Hub, as for `from_pretrained`; or a model in memory.
        device: Where to compute: a device, the number of a GPU (-1: the CPU), or "auto". Where not given, a model in
            memory stays where it is, and a loaded one goes to the GPU if there is one.
        dtype: Of the parameters; float32 where not given.
        **options: `image_processor` (or `video_processor`, `feature_extractor`): frames to pixel values, where it is
            not to be that of the model's folder; `clip`: how clips are sampled where the folder does not say;
            defaults of the call's `top_k`, `num_frames`, `frame_sampling_rate`, `function_to_apply`; the Hub's
            `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder`.

    Returns:
        The callable; see `VideoClassificationPipeline.__call__`.

    Raises:
        WeightsError: If the model or its processor cannot be loaded.
        ConfigError: If an argument is unknown or out of range.
    """
    if task != TASK:
        raise ConfigError(f"task is {task!r}; this package's only pipeline is {TASK!r}")
    refuse_unknown(options, (*CALL_NAMES, *PROCESSOR_NAMES, "clip", *HUB_NAMES), kind="argument of pipeline")
    given = [options[name] for name in PROCESSOR_NAMES if options.get(name) is not None]
    if len(given) > 1:
        raise ConfigError(f"{', '.join(PROCESSOR_NAMES)} are one argument: give one of them")
    processor: VideoMAEImageProcessor | None = given[0] if given else None
    if isinstance(model, VideoMAEForVideoClassification):
        if processor is None:
            raise ConfigError(
                "model is in memory and does not say how frames are prepared: give image_processor, for example "
                "VideoMAEImageProcessor.from_pretrained of its folder"
            )
        source = "the model"
        classifier = model if dtype is None else model.to(_dtype(dtype))
        classifier = classifier if device is None else classifier.to(_device(device))
    else:
        source = os.fspath(model)
        hub = {name: options[name] for name in HUB_NAMES if name in options}
        classifier = VideoMAEForVideoClassification.from_pretrained(source, dtype=dtype, **hub)
        processor = processor or _stored_processor(source, classifier, hub)
        classifier = classifier.to(_device(device))
    defaults = {name: options[name] for name in CALL_NAMES if options.get(name) is not None}
    clip = options.get("clip") or _trained_clip(processor, classifier)
    assumed = replace(PUBLISHED_CLIP, num_frames=classifier.config.num_frames)
    loaded = LoadedModel(source, classifier.eval(), _of_frames(processor), clip or assumed)
    return VideoClassificationPipeline(Predictor.from_loaded(loaded), processor, clip, defaults=defaults)


def _of_frames(processor: VideoMAEImageProcessor) -> VideoMAEImageProcessor:
    """Return a processor without sampling of its own: the frames it is given are those that were chosen."""
    return VideoMAEImageProcessor(**{name: getattr(processor, name) for name in SETTINGS})


def _stored_processor(
    source: str, classifier: VideoMAEForVideoClassification, hub: Mapping[str, Any]
) -> VideoMAEImageProcessor:
    """Return the processor beside the weights; for a weights file alone, that of the published models."""
    name = None if os.path.exists(source) else split_hub_name(source)
    if not (os.path.isfile(source) or (name is not None and name[1])):
        return VideoMAEVideoProcessor.from_pretrained(source, **hub)
    default = default_processor(classifier.config)
    if default is None:
        raise ConfigError(f"{source} does not say how frames are prepared: give image_processor")
    return default


def _trained_clip(processor: VideoMAEImageProcessor, classifier: VideoMAEForVideoClassification) -> ClipConfig | None:
    if isinstance(processor, VideoMAEVideoProcessor) and processor.clip is not None:
        return processor.clip
    if classifier.origin is None or classifier.origin.record is None:
        return None
    return read_record(classifier.origin.record).sampling


def _device(device: torch.device | str | int | None) -> torch.device:
    if isinstance(device, int) and not isinstance(device, bool):
        return torch.device("cpu") if device < 0 else torch.device("cuda", device)
    if device in (None, "auto"):
        return pick_device("auto")
    return torch.device(cast("torch.device | str", device))


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"dtype is {dtype!r}; give one like 'float32' or 'bfloat16'")
    return found


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, at least 1")
    return value
