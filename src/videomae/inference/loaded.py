"""A model in eval mode on its device with its processor, its class names and the frame sampling it was trained with.

The frame sampling is the `clip` entry of the folder's `videomae.json`: a model learns at one distance between frames
and is worse at any other, so the distance travels with it.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from videomae.engine.precision import DeviceName, pick_device
from videomae.errors import ConfigError, WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.companions import default_processor
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import ClipConfig
from videomae.weights.json_files import read_json
from videomae.weights.loading import LoadOptions, open_checkpoint, wanted_kind
from videomae.weights.recognition import Kind
from videomae.weights.sources import PROCESSOR_FILE, RECORD_FILE

PUBLISHED_STRIDE = 4  # of the published Kinetics networks, the ones whose folders most often have no record
RGB_CHANNELS = 3
HOLDS: dict[Kind, str] = {
    "classification": "a classifier",
    "encoder": "a bare encoder",
    "pretraining": "a pre-trained network",
}
LACKS: dict[Kind, str] = {"classification": "a classifier", "pretraining": "a decoder"}
CURES: dict[Kind, str] = {
    "classification": "fine-tune it first, or give a fine-tuned network",
    "pretraining": "give a pre-trained network that still has its decoder",
}

Network = TypeVar("Network", bound=VideoMAEPreTrainedModel, covariant=True)
Loaded = TypeVar("Loaded", bound=VideoMAEPreTrainedModel)


@dataclass(frozen=True)
class LoadedModel(Generic[Network]):
    """A network in eval mode on its device, and what belongs to it."""

    source: str
    """Where it came from, as it was given."""
    model: Network
    """The network."""
    processor: VideoMAEImageProcessor
    """Frames to pixel values and back."""
    clip: ClipConfig
    """How clips are sampled."""

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names by number; only those of a classifier mean anything."""
        config = self.model.config
        return tuple(config.id2label[number] for number in range(config.num_labels))


def load_trained(
    cls: type[Loaded],
    source: str | os.PathLike[str],
    *,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
) -> LoadedModel[Loaded]:
    """Load a network and what lies beside it; no part of it is made afresh.

    Args:
        cls: One of the three models. The bare encoder is taken out of any network.
        source: Folder of a model or of a finished run, weights file, or Hub name; see `from_pretrained`.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.

    Raises:
        WeightsError: If there is nothing to load, it is damaged, or it lacks the classifier or decoder.
        ConfigError: If the clip does not fit the network, or the device is not there.
    """
    place = pick_device(device)
    wanted = wanted_kind(cls)
    kind = source_kind(source)
    # from_pretrained would make a fresh head for training to fill; here its answers would mean nothing.
    if wanted not in ("encoder", kind):
        raise WeightsError(f"{source} holds {HOLDS[kind]}, without {LACKS[wanted]}: {CURES[wanted]}")
    name = os.fspath(source)
    model = cls.from_pretrained(name)
    record = model.origin.record if model.origin else None
    clip = clip or stored_clip(record, model.config, name=name)
    check_clip(clip, model.config)
    return LoadedModel(name, model.to(place).eval(), _stored_processor(model, name), clip)


def source_kind(source: str | os.PathLike[str]) -> Kind:
    """Tell which network a source holds, by the names of its tensors.

    Raises:
        WeightsError: If there is nothing to load, or it is damaged or in no known layout.
    """
    return open_checkpoint(source, LoadOptions()).layout.kind


def _stored_processor(model: VideoMAEPreTrainedModel, name: str) -> VideoMAEImageProcessor:
    if model.origin is not None and model.origin.processor is not None:
        return VideoMAEImageProcessor.from_pretrained(model.origin.processor)
    processor = default_processor(model.config)
    assert processor is not None  # check_clip has refused networks that take no RGB
    warnings.warn(
        f"{name} has no {PROCESSOR_FILE} beside it: assuming that of the published networks, a centre crop of "
        f"{processor.crop_size['height']}x{processor.crop_size['width']} and ImageNet's mean and deviation",
        UserWarning,
        stacklevel=4,
    )
    return processor


def load_classifier(
    source: str | os.PathLike[str], *, clip: ClipConfig | None = None, device: DeviceName = "auto"
) -> LoadedModel[VideoMAEForVideoClassification]:
    """Load a classifier.

    Args:
        source: Folder of a model or of a finished run, weights file, or Hub name; see `from_pretrained`.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.

    Raises:
        WeightsError: If the source cannot be loaded or holds no classifier.
        ConfigError: If the clip does not fit the network, or the device is not there.
    """
    return load_trained(VideoMAEForVideoClassification, source, clip=clip, device=device)


def load_pretraining(
    source: str | os.PathLike[str], *, clip: ClipConfig | None = None, device: DeviceName = "auto"
) -> LoadedModel[VideoMAEForPreTraining]:
    """Load an encoder with its decoder; arguments and errors as for `load_classifier`."""
    return load_trained(VideoMAEForPreTraining, source, clip=clip, device=device)


def load_encoder(
    source: str | os.PathLike[str], *, clip: ClipConfig | None = None, device: DeviceName = "auto"
) -> LoadedModel[VideoMAEModel] | LoadedModel[VideoMAEForVideoClassification]:
    """Load what computes features: the classifier where the source holds one, else the bare encoder of any network.

    Arguments and errors as for `load_classifier`.
    """
    if source_kind(source) == "classification":
        return load_trained(VideoMAEForVideoClassification, source, clip=clip, device=device)
    return load_trained(VideoMAEModel, source, clip=clip, device=device)


def record_from_clip(clip: ClipConfig) -> dict[str, Any]:
    """Return the record entry of a clip, plain JSON values; `clip_from_record` reads it back equal."""
    return {"clip": dataclasses.asdict(clip)}


def clip_from_record(record: Mapping[str, Any]) -> ClipConfig | None:
    """Read the clip out of the contents of a `videomae.json`.

    Args:
        record: The whole record; entries beside `clip` are left alone.

    Returns:
        The clip, or None where the record has none.

    Raises:
        ConfigError: If the entry is not what `record_from_clip` writes.
    """
    if "clip" not in record:
        return None
    entry = record["clip"]
    names = [one.name for one in dataclasses.fields(ClipConfig)]
    whole_numbers = ("num_frames", "stride")
    if not isinstance(entry, Mapping) or set(entry) != set(names):
        raise ConfigError(f"the clip entry is {entry!r}; it must be an object with {', '.join(names)}")
    for name in whole_numbers:
        if isinstance(entry[name], bool) or not isinstance(entry[name], int):
            raise ConfigError(f"clip.{name} is {entry[name]!r}; it must be a whole number of frames")
    return ClipConfig(**entry)


def stored_clip(record: Path | None, config: VideoMAEConfig, *, name: str) -> ClipConfig:
    """Return the frame sampling that a network was trained with.

    A network without record, such as one that transformers wrote, says nothing about it. Then the configuration's
    number of frames at the published stride of 4 is assumed, with a warning.

    Args:
        record: Its `videomae.json`; None if it has none.
        config: Its configuration.
        name: What to call the network in messages.

    Raises:
        WeightsError: If the record cannot be read.
    """
    try:
        clip = None if record is None else clip_from_record(read_json(record))
    except ConfigError as error:
        raise WeightsError(f"{record}: {error}") from None
    if clip is not None:
        return clip
    warnings.warn(
        f"{name} does not say how its clips were sampled (no clip in {RECORD_FILE}): assuming "
        f"{config.num_frames} frames, stride {PUBLISHED_STRIDE}; give the clip to choose another",
        UserWarning,
        stacklevel=4,
    )
    return ClipConfig(num_frames=config.num_frames, stride=PUBLISHED_STRIDE)


def check_clip(clip: ClipConfig, config: VideoMAEConfig) -> None:
    """Check that a network can take such clips of video.

    Raises:
        ConfigError: If its tubelets do not divide the clip, or it does not take frames of red, green and blue.
    """
    if clip.num_frames % config.tubelet_size:
        raise ConfigError(
            f"clip.num_frames is {clip.num_frames}, which the network's tubelets of {config.tubelet_size} frames do "
            f"not divide: use a multiple of {config.tubelet_size}"
        )
    if config.num_channels != RGB_CHANNELS:
        raise ConfigError(
            f"the network takes frames of {config.num_channels} channel(s), but videos are read as RGB: call the "
            "network with pixel values of your own"
        )
