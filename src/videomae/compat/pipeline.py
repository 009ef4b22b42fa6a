"""`pipeline("video-classification", model=...)`: transformers' callable, with the sampling that was trained with.

It translates arguments and results; `inference.Predictor` classifies. What differs from transformers is which frames
are sampled: transformers 4 took the first half second, transformers 5 spreads them over the whole file and ignores
`frame_sampling_rate`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast, get_args

import torch
from torch.utils.data import Dataset

from videomae.compat.video_processor import VideoMAEVideoProcessor
from videomae.engine.precision import pick_device
from videomae.errors import ConfigError
from videomae.inference.inputs import ACCEPTED, batch_of
from videomae.inference.loaded import LoadedModel
from videomae.inference.predictor import Predictor
from videomae.inference.scores import Activation, scores_of, usual_activation
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.defaults import default_processor
from videomae.processing.image_processor import SETTINGS, VideoMAEImageProcessor, refuse_unknown
from videomae.sharing.record import PUBLISHED_CLIP, ModelRecord, read_record
from videomae.video.sampling import ClipConfig
from videomae.weights.hub import HubOptions, split_hub_name

TASK = "video-classification"
CALL_NAMES = ("top_k", "num_frames", "frame_sampling_rate", "function_to_apply")
PROCESSOR_NAMES = ("image_processor", "video_processor", "feature_extractor", "processor")
LOADING_NAMES = ("torch_dtype", "device_map", "model_kwargs", "config")
WITHOUT_EFFECT = ("framework", "tokenizer", "trust_remote_code", "use_fast", "batch_size", "num_workers")
HUB_NAMES = tuple(HubOptions.__dataclass_fields__)
FilePath = str | os.PathLike[str]
Labels = list[dict[str, Any]]


class VideoClassificationPipeline:
    """Classifies videos; made by `pipeline`.

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

    framework = "pt"
    tokenizer = None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's parameters."""
        return self.model.dtype

    @property
    def image_processor(self) -> VideoMAEImageProcessor:
        """The processor, as transformers 4 calls it; `video_processor` and `feature_extractor` are the same."""
        return self.processor

    video_processor = feature_extractor = image_processor

    def save_pretrained(self, folder: FilePath, **_: Any) -> None:
        """Write model, processor and sampling into a folder that `pipeline` reads; other arguments do nothing."""
        origin = self.model.origin
        record = ModelRecord() if origin is None or origin.record is None else read_record(origin.record)
        record = replace(record, sampling=self.clip or record.sampling)
        self.model.save_pretrained(os.fspath(folder), processor=self.processor, record=record)

    def __call__(self, inputs: Any = None, *, videos: Any = None, **options: Any) -> Any:
        """Classify one video or several.

        Args:
            inputs: One video (a path, an http(s) address, bytes, an open binary file, or its frames: an array or
                tensor uint8 `[n, H, W, 3]` or `[n, 3, H, W]`, a list or deque of arrays or PIL images), a list of
                videos, or an iterator or `torch.utils.data.Dataset` of them.
            videos: The older name of `inputs`.
            **options: `top_k`: labels to return, most probable first; 5 where not given, and never more than there
                are. `num_frames`: T, frames of the clip; as the model was trained with where not given.
                `frame_sampling_rate`: distance of neighbouring frames in frames of the file; as trained with where
                not given; the clip is the middle of the file. `function_to_apply`: what makes scores of logits,
                "softmax", "sigmoid" or "none"; where not given by the model, see `inference.scores`. `batch_size`
                and `num_workers` change nothing: one clip is classified at a time.

        Returns:
            `[{"score": float, "label": str}]`; for a list a list of such lists, for an iterator or data set an
            iterator of them.

        Raises:
            VideoReadError: If a file cannot be read.
            ConfigError: If an argument is unknown or out of range, what is given is no video, or the clip does not
                fit the model.
            RunError: If the model's output is not finite.
        """
        if (inputs is None) == (videos is None):
            raise ConfigError(f"inputs is not given, or videos beside it: {ACCEPTED}")
        inputs = videos if inputs is None else inputs
        refuse_unknown(options, (*CALL_NAMES, *WITHOUT_EFFECT), kind="argument of the pipeline's call")
        given = {name: value for name, value in options.items() if value is not None}
        _check_without_effect(given)
        chosen = {**self._defaults, **given}
        count = _count("top_k", chosen.get("top_k", 5))
        activation = chosen.get("function_to_apply") or usual_activation(self.model.config)
        if activation not in get_args(Activation):
            raise ConfigError(f"function_to_apply is {activation!r}; choose from {', '.join(get_args(Activation))}")
        clip = self._clip(chosen.get("num_frames"), chosen.get("frame_sampling_rate"))
        if isinstance(inputs, Iterator | Dataset):
            return (self._classify(video, clip, activation, count) for video in _items(inputs))
        batch = batch_of(inputs)
        if batch is None:
            return self._classify(inputs, clip, activation, count)
        return [self._classify(video, clip, activation, count) for video in batch]

    def _classify(self, video: Any, clip: ClipConfig, activation: Activation, top_k: int) -> Labels:
        scores = scores_of(self._predictor.view_logits(video, clip=clip).logits[0], activation)  # [K]
        order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        return [{"score": float(scores[number]), "label": self._predictor.classes[number]} for number in order]

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
            kind = "dense" if clip.kind == "segment" else clip.kind  # segments have no stride
            clip = replace(clip, stride=_count("frame_sampling_rate", stride), kind=kind)
        return clip


def pipeline(
    task: str | None = None,
    model: FilePath | VideoMAEForVideoClassification | None = None,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    speed: float = 1.0,
    **options: Any,
) -> VideoClassificationPipeline:
    """Make a callable that classifies videos, as transformers' function of this name does.

    Args:
        task: "video-classification", the only one.
        model: A folder, a file or `owner/name` on the Hub, as for `from_pretrained`; or a model in memory.
        device: Where to compute: a device, the number of a GPU (-1: the CPU), or "auto". Where not given, a model in
            memory stays where it is, and a loaded one goes to the GPU if there is one.
        dtype: Of the parameters; float32 where not given. `torch_dtype` is its older name.
        speed: How many times fewer operations a clip takes, as for `Predictor`; transformers has no such argument.
        **options: `image_processor` (or `video_processor`, `feature_extractor`, `processor`): frames to pixel values,
            or the folder or Hub name of it, where it is not to be that of the model's folder; `clip`: how clips are
            sampled where the folder does not say; defaults of the call's `top_k`, `num_frames`,
            `frame_sampling_rate`, `function_to_apply`; `model_kwargs`: further arguments of `from_pretrained`, and
            `config`; `device_map`: as `device`; the Hub's `revision`, `token`, `cache_dir`, `local_files_only`,
            `force_download`, `subfolder`. `framework`, `tokenizer`, `trust_remote_code`, `use_fast`, `batch_size` and
            `num_workers` are taken and change nothing.

    Returns:
        The callable; see `VideoClassificationPipeline.__call__`.

    Raises:
        WeightsError: If the model or its processor cannot be loaded.
        ConfigError: If an argument is unknown or out of range.
    """
    if task not in (None, TASK):
        raise ConfigError(f"task is {task!r}; this package's only pipeline is {TASK!r}")
    if model is None:
        raise ConfigError(
            "model is not given: give a folder, a name on the Hub such as "
            "'MCG-NJU/videomae-base-finetuned-kinetics', or a model in memory"
        )
    known = (*CALL_NAMES, *PROCESSOR_NAMES, "clip", *HUB_NAMES, *LOADING_NAMES, *WITHOUT_EFFECT)
    refuse_unknown(options, known, kind="argument of pipeline")
    options = {name: value for name, value in options.items() if value is not None}
    _check_without_effect(options)
    dtype, device = _older_names(dtype, device, options)
    given = [options[name] for name in PROCESSOR_NAMES if name in options]
    if len(given) > 1:
        raise ConfigError(f"{', '.join(PROCESSOR_NAMES)} are one argument: give one of them")
    hub = {name: options[name] for name in HUB_NAMES if name in options}
    named = bool(given) and isinstance(given[0], str | os.PathLike)
    processor: VideoMAEImageProcessor | None = (
        VideoMAEVideoProcessor.from_pretrained(given[0], **hub) if named else given[0] if given else None
    )
    if isinstance(model, VideoMAEForVideoClassification):
        if processor is None:
            raise ConfigError(
                "model is in memory and does not say how frames are prepared: give image_processor, for example "
                "VideoMAEImageProcessor.from_pretrained of its folder"
            )
        source = "the model"
        classifier = model if dtype in (None, "auto") else model.to(_dtype(cast("torch.dtype | str", dtype)))
        classifier = classifier if device is None else classifier.to(_device(device))
    else:
        source = os.fspath(model)
        loading = {**hub, **options.get("model_kwargs", {})}
        if "config" in options:
            loading["config"] = options["config"]
        if dtype is not None:
            loading["dtype"] = dtype
        classifier = VideoMAEForVideoClassification.from_pretrained(source, **loading)
        processor = processor or _stored_processor(source, classifier, hub)
        classifier = classifier.to(_device(device))
    defaults = {name: options[name] for name in CALL_NAMES if name in options}
    clip = options.get("clip") or _trained_clip(processor, classifier)
    assumed = replace(PUBLISHED_CLIP, num_frames=classifier.config.num_frames)
    loaded = LoadedModel(source, classifier.eval(), _of_frames(processor), clip or assumed)
    predictor = Predictor.from_loaded(loaded, speed=speed)
    return VideoClassificationPipeline(predictor, processor, clip, defaults=defaults)


def _older_names(dtype: Any, device: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return dtype and device, of which torch_dtype and device_map are other names."""
    for name, value, other in (("dtype", dtype, "torch_dtype"), ("device", device, "device_map")):
        if value is not None and other in options:
            raise ConfigError(f"{name} and {other} are one argument: give one of them")
    dtype = options.get("torch_dtype", dtype)
    place = options.get("device_map", device)
    if isinstance(place, Mapping):
        if len(place) != 1 or "" not in place:
            raise ConfigError(f"device_map is {place!r}; the model computes on one device: give its name, or 'auto'")
        place = place[""]
    return dtype, place


def _check_without_effect(options: Mapping[str, Any]) -> None:
    """Check the arguments that are taken and change nothing, where another value would have to change something."""
    if options.get("framework", "pt") != "pt":
        raise ConfigError(
            f"framework is {options['framework']!r}; the models are PyTorch's: leave it out or give 'pt'"
        )
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number, at least {least}")


def _items(videos: Any) -> Iterator[Any]:
    """Iterate over an iterator, or over a data set by its length, which plain iteration ignores."""
    if isinstance(videos, Iterator) or not hasattr(videos, "__len__"):
        yield from videos
        return
    for number in range(len(videos)):
        yield videos[number]


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
