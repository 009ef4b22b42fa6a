"""A model in eval mode on its device with its processor, its class names and its frame sampling."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from videomae.engine.precision import DeviceName, pick_device
from videomae.errors import ConfigError, WeightsError
from videomae.masking import MaskConfig
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.defaults import default_processor
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import PUBLISHED_CLIP, TrainingRecord, read_record
from videomae.video.decoders import DecoderName
from videomae.video.sampling import ClipConfig
from videomae.weights.kinds import kind_of_class
from videomae.weights.loading import Checkpoint, load_checkpoint, open_checkpoint
from videomae.weights.options import LoadOptions
from videomae.weights.sources import PROCESSOR_FILE, RECORD_FILE

READ_CHANNELS = (1, 3)
"""Channels of the models that read videos: grey, which is the mean of the three, or red, green and blue."""

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel, covariant=True)
Loaded = TypeVar("Loaded", bound=VideoMAEPreTrainedModel)


@dataclass(frozen=True)
class LoadedModel(Generic[Model]):
    """A model in eval mode on its device, and what belongs to it."""

    source: str
    """Where it came from, as it was given."""
    model: Model
    """The model."""
    processor: VideoMAEImageProcessor
    """Frames to pixel values and back."""
    clip: ClipConfig
    """How clips are sampled."""
    thresholds: Mapping[str, float] | None = None
    """Scores from which labels count as present, by their names, as the record beside the weights says."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """How tokens were hidden from the encoder in pre-training, as the record says; else tubes over 90 %."""
    decoder: DecoderName = "pyav"
    """What decodes the videos that it is given."""

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names by label id; only those of a classifier mean anything."""
        config = self.model.config
        return tuple(config.id2label[label_id] for label_id in range(config.num_labels))


def load_trained(
    cls: type[Loaded],
    source: str | os.PathLike[str],
    *,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
) -> LoadedModel[Loaded]:
    """Load a model and the files next to it; no part of it is randomly initialized.

    Args:
        cls: The model class. The bare encoder is taken out of any model.
        source: Folder of a model or of a finished run, weights file, or Hub name; see `from_pretrained`.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.

    Raises:
        WeightsError: If there is nothing to load, it is damaged, or it lacks the head.
        ConfigError: If the clip does not fit the model, or the device is not there.
    """
    pick_device(device)  # before anything is read
    return _load(cls, _open(cls, source), source, clip=clip, device=device)


def _open(cls: type[VideoMAEPreTrainedModel], source: str | os.PathLike[str]) -> Checkpoint:
    return open_checkpoint(os.fspath(source), cls.config_class)


def _load(
    cls: type[Loaded],
    checkpoint: Checkpoint,
    source: str | os.PathLike[str],
    *,
    clip: ClipConfig | None,
    device: DeviceName,
) -> LoadedModel[Loaded]:
    target, name = pick_device(device), os.fspath(source)
    wanted, held = kind_of_class(cls), checkpoint.layout.kind
    # from_pretrained would randomly initialize a head for training; its outputs would mean nothing here.
    if wanted.parts and wanted is not held:
        raise WeightsError(f"{source} holds {held.holds}, without a {wanted.head}: {wanted.hint}")
    model = load_checkpoint(cls, checkpoint, LoadOptions(), {}).model
    record = model.origin.record if model.origin else None
    clip = clip or stored_clip(record, model.config, name=name)
    check_clip(clip, model.config)
    processor = _stored_processor(model, name)
    loaded = LoadedModel(name, model.to(target).eval(), processor, clip)
    if record is None:
        return loaded
    told = read_record(record)
    return replace(loaded, thresholds=told.thresholds, mask=trained_mask(told.training))


def trained_mask(training: TrainingRecord | None) -> MaskConfig:
    """Return how a recorded training hid tokens from the encoder; the published way where nothing usable stands."""
    values = {} if training is None else training.recipe.get("mask")
    known = (
        {name: values[name] for name in ("kind", "ratio") if name in values} if isinstance(values, Mapping) else {}
    )
    try:
        return MaskConfig(**known)
    except (ConfigError, TypeError):
        return MaskConfig()


def source_kind(source: str | os.PathLike[str]) -> str:
    """Tell which kind of model a source holds, a key of `weights.kinds.KINDS`, by the names of its tensors.

    Raises:
        WeightsError: If there is nothing to load, or it is damaged or in no known layout.
    """
    return _open(VideoMAEPreTrainedModel, source).layout.kind.name


def _stored_processor(model: VideoMAEPreTrainedModel, name: str) -> VideoMAEImageProcessor:
    if model.origin is not None and model.origin.processor is not None:
        return VideoMAEImageProcessor.from_pretrained(model.origin.processor)
    processor = default_processor(model.config)
    assert processor is not None  # check_clip has refused models that take no RGB
    warnings.warn(
        f"{name} has no {PROCESSOR_FILE} next to it: assuming that of the published models, a center crop of "
        f"{processor.crop_size['height']}x{processor.crop_size['width']} and ImageNet's mean and std",
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
        ConfigError: If the clip does not fit the model, or the device is not there.
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
    """Load what computes features: the classifier where the source holds one, else the bare encoder of any model.

    Arguments and errors as for `load_classifier`.
    """
    pick_device(device)  # before anything is read
    checkpoint = _open(VideoMAEModel, source)
    if checkpoint.layout.kind is kind_of_class(VideoMAEForVideoClassification):
        return _load(VideoMAEForVideoClassification, checkpoint, source, clip=clip, device=device)
    return _load(VideoMAEModel, checkpoint, source, clip=clip, device=device)


def stored_clip(record: Path | None, config: VideoMAEConfig, *, name: str) -> ClipConfig:
    """Return the frame sampling that a model was trained with.

    A model without record, such as one that transformers wrote, says nothing about it. Then the configuration's
    number of frames at the published stride of 4 is assumed, with a warning.

    Args:
        record: Its `videomae.json`; None if it has none.
        config: Its configuration.
        name: What to call the model in messages.

    Raises:
        WeightsError: If the record cannot be read.
    """
    clip = None if record is None else read_record(record).sampling
    if clip is not None:
        return clip
    warnings.warn(
        f"{name} does not say how its clips were sampled (no clip in {RECORD_FILE}): assuming "
        f"{config.num_frames} frames, stride {PUBLISHED_CLIP.stride}; give the clip to choose another",
        UserWarning,
        stacklevel=4,
    )
    return replace(PUBLISHED_CLIP, num_frames=config.num_frames)


def check_clip(clip: ClipConfig, config: VideoMAEConfig) -> None:
    """Check that a model can take such clips of video.

    Raises:
        ConfigError: If its tubelets do not divide the clip, or it takes frames of neither one nor three channels.
    """
    if clip.num_frames % config.tubelet_size:
        raise ConfigError(
            f"clip.num_frames is {clip.num_frames}, which the model's tubelets of {config.tubelet_size} frames do "
            f"not divide: use a multiple of {config.tubelet_size}"
        )
    if config.num_channels not in READ_CHANNELS:
        raise ConfigError(
            f"the model takes frames of {config.num_channels} channels, but videos are read as RGB or as grey: call "
            "the model with custom pixel values"
        )


def weights_digest(model: nn.Module) -> str:
    """Return 16 hexadecimal digits that tell a model's weights from others."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
