"""`pipeline("video-classification", model=...)`: transformers' callable, with the sampling that was trained with.

Takes its arguments and returns its values. What differs is which frames are looked at: transformers 4 took the first
half second, transformers 5 spreads them over the whole file and ignores `frame_sampling_rate`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from videomae.compat.inputs import listed_paths
from videomae.compat.video_processor import VideoMAEVideoProcessor
from videomae.engine.precision import pick_device
from videomae.errors import ConfigError, RunError
from videomae.inference.loaded import check_clip
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.defaults import default_processor
from videomae.processing.image_processor import VideoMAEImageProcessor, refuse_unknown
from videomae.sharing.record import PUBLISHED_CLIP, read_record
from videomae.video.decode import VideoReader
from videomae.video.sampling import ClipConfig, centre_clip
from videomae.weights.hub import HubOptions, split_hub_name

TASK = "video-classification"
CALL_NAMES = ("top_k", "num_frames", "frame_sampling_rate", "function_to_apply")
PROCESSOR_NAMES = ("image_processor", "video_processor", "feature_extractor")
HUB_NAMES = tuple(HubOptions.__dataclass_fields__)
Activation = Literal["softmax", "sigmoid", "none"]
FilePath = str | os.PathLike[str]
Answer = list[dict[str, Any]]


class VideoClassificationPipeline:
    """Classifies video files; made by `pipeline`.

    Args:
        model: The classifier.
        processor: Frames to pixel values.
        clip: How clips are sampled where a call does not say; None: as for the published networks, with a warning.
        defaults: Arguments of `__call__` where a call does not give them.
    """

    def __init__(
        self,
        model: VideoMAEForVideoClassification,
        processor: VideoMAEImageProcessor,
        clip: ClipConfig | None,
        *,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        self.task = TASK
        self.model = model
        self.processor = processor
        self.clip = clip
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
    ) -> Answer | list[Answer]:
        """Classify one file or several.

        Args:
            inputs: A path, or a list of them.
            top_k: Labels to return, most probable first; 5 where not given, and never more than there are.
            num_frames: T, frames of the clip; as the network was trained with where not given.
            frame_sampling_rate: Distance of neighbouring frames in frames of the file; as trained with where not
                given. The clip is the middle of the file.
            function_to_apply: What makes scores of logits: where not given "none" for regression, "sigmoid" for
                several labels at once, else "softmax".

        Returns:
            `[{"score": float, "label": str}]`, for a list of files a list of such lists.

        Raises:
            VideoReadError: If a file cannot be read.
            ConfigError: If an argument is out of range, or the clip does not fit the network.
            RunError: If the network's answer is not finite.
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
        answers = [self._classify(path, clip, activation, count) for path in paths]
        return answers[0] if isinstance(inputs, str | os.PathLike) else answers

    @torch.inference_mode()
    def _classify(self, path: str, clip: ClipConfig, activation: str, top_k: int) -> Answer:
        with VideoReader(path) as reader:
            frames = reader.frames(centre_clip(len(reader), clip))  # [T, H, W, 3]
        pixel_values = self.processor(frames, return_tensors="pt", input_data_format="channels_last").pixel_values
        logits = self.model(pixel_values.to(self.device, self.model.dtype)).logits[0].cpu().double()  # [K]
        scores: Tensor = logits
        if activation != "none":
            scores = logits.softmax(dim=0) if activation == "softmax" else logits.sigmoid()
        values = scores.numpy()
        if not np.isfinite(values).all():
            raise RunError(f"the network's answer to {path} is not finite: its weights are damaged")
        order = np.argsort(-values, kind="stable")[:top_k].tolist()
        return [{"score": float(values[number]), "label": self.model.config.id2label[number]} for number in order]

    def _usual_activation(self) -> Activation:
        match self.model.config.problem_type:
            case "regression":
                return "none"
            case "multi_label_classification":
                return "sigmoid"
            case _:
                return "softmax"

    def _clip(self, num_frames: Any, stride: Any) -> ClipConfig:
        trained = self.clip or ClipConfig(num_frames=self.model.config.num_frames, stride=PUBLISHED_CLIP.stride)
        if self.clip is None and stride is None:
            warnings.warn(
                f"nothing says how the clips of this model were sampled: assuming stride {PUBLISHED_CLIP.stride}; "
                "give frame_sampling_rate to choose another",
                UserWarning,
                stacklevel=3,
            )
        clip = replace(
            trained, num_frames=trained.num_frames if num_frames is None else _count("num_frames", num_frames)
        )
        if stride is not None:
            clip = replace(clip, stride=_count("frame_sampling_rate", stride), kind="dense")
        check_clip(clip, self.model.config)
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
        model: A folder, a file or `owner/name` on the Hub, as for `from_pretrained`; or a network.
        device: Where to compute: a device, the number of a GPU (-1: the CPU), or "auto". Where not given, a network
            stays where it is, and a loaded one goes to the GPU if there is one.
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
            raise ConfigError("model is a network, which does not say how frames are prepared: give image_processor")
        network = model if dtype is None else model.to(_dtype(dtype))
        network = network if device is None else network.to(_device(device))
    else:
        hub = {name: options[name] for name in HUB_NAMES if name in options}
        network = VideoMAEForVideoClassification.from_pretrained(os.fspath(model), dtype=dtype, **hub)
        processor = processor or _stored_processor(os.fspath(model), network, hub)
        network = network.to(_device(device))
    defaults = {name: options[name] for name in CALL_NAMES if options.get(name) is not None}
    clip = options.get("clip") or _trained_clip(processor, network)
    return VideoClassificationPipeline(network.eval(), processor, clip, defaults=defaults)


def _stored_processor(
    source: str, network: VideoMAEForVideoClassification, hub: Mapping[str, Any]
) -> VideoMAEImageProcessor:
    """Return the processor beside the weights; for a weights file alone, that of the published networks."""
    name = None if os.path.exists(source) else split_hub_name(source)
    if not (os.path.isfile(source) or (name is not None and name[1])):
        return VideoMAEVideoProcessor.from_pretrained(source, **hub)
    default = default_processor(network.config)
    if default is None:
        raise ConfigError(f"{source} does not say how frames are prepared: give image_processor")
    return default


def _trained_clip(processor: VideoMAEImageProcessor, network: VideoMAEForVideoClassification) -> ClipConfig | None:
    if isinstance(processor, VideoMAEVideoProcessor) and processor.clip is not None:
        return processor.clip
    if network.origin is None or network.origin.record is None:
        return None
    return read_record(network.origin.record).sampling


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
