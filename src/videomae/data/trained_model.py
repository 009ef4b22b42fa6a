"""A trained network with all that its use needs: processor, class names, and the frame sampling it was trained with.

On this floor because testing and prediction both begin here. Knows nothing of what the network is used for.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Generic, TypeVar

from videomae.data.clip_record import check_clip, stored_clip
from videomae.engine.precision import DeviceName, pick_device
from videomae.errors import WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.companions import default_processor
from videomae.model.loading import LoadOptions, open_checkpoint, wanted_kind
from videomae.model.processor import VideoMAEImageProcessor
from videomae.model.recognition import Kind
from videomae.model.sources import PROCESSOR_FILE
from videomae.video.sampling import ClipConfig

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
