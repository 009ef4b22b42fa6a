"""A saved network with all that its use needs: processor, class names, and the frame sampling it was trained with.

Knows nothing of what the network is used for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from safetensors import SafetensorError, safe_open

from videomae.data.clip_record import check_clip, clip_from_record, record_from_clip, stored_clip
from videomae.engine.precision import DeviceName, pick_device
from videomae.errors import WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.model.processor import VideoMAEImageProcessor
from videomae.model.weights import WEIGHTS_FILE, find_model_folder
from videomae.video.sampling import ClipConfig

__all__ = [
    "LoadedModel",
    "clip_from_record",
    "folder_kind",
    "load_classifier",
    "load_encoder",
    "load_pretraining",
    "record_from_clip",
]

Kind = Literal["classification", "encoder", "pretraining"]
Network = TypeVar("Network", bound=VideoMAEPreTrainedModel, covariant=True)


@dataclass(frozen=True)
class LoadedModel(Generic[Network]):
    """A network in eval mode on its device, and what belongs to it."""

    folder: Path
    """Where it came from."""
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


def load_classifier(
    source: str | os.PathLike[str], *, clip: ClipConfig | None = None, device: DeviceName = "auto"
) -> LoadedModel[VideoMAEForVideoClassification]:
    """Load a classifier.

    Args:
        source: Model folder, or folder of a finished run.
        clip: How clips are sampled; as the folder says where not given.
        device: Where to compute.

    Raises:
        WeightsError: If the folder cannot be loaded or holds no classifier.
        ConfigError: If the clip does not fit the network, or the device is not there.
    """
    folder = find_model_folder(Path(source))
    _require(folder, "classification", cure="fine-tune it first, or give the folder of a fine-tuned network")
    return _load(VideoMAEForVideoClassification, folder, clip, device)


def load_pretraining(
    source: str | os.PathLike[str], *, clip: ClipConfig | None = None, device: DeviceName = "auto"
) -> LoadedModel[VideoMAEForPreTraining]:
    """Load an encoder with its decoder; arguments and errors as for `load_classifier`."""
    folder = find_model_folder(Path(source))
    _require(folder, "pretraining", cure="give the folder of a pre-trained network that still has its decoder")
    return _load(VideoMAEForPreTraining, folder, clip, device)


def load_encoder(
    source: str | os.PathLike[str], *, clip: ClipConfig | None = None, device: DeviceName = "auto"
) -> LoadedModel[VideoMAEModel] | LoadedModel[VideoMAEForVideoClassification]:
    """Load what computes features: the classifier where the folder holds one, else the bare encoder of any network.

    Arguments and errors as for `load_classifier`.
    """
    folder = find_model_folder(Path(source))
    if folder_kind(folder) == "classification":
        return _load(VideoMAEForVideoClassification, folder, clip, device)
    return _load(VideoMAEModel, folder, clip, device)


def folder_kind(folder: Path) -> Kind:
    """Tell which network a model folder holds, by the names of its tensors.

    Raises:
        WeightsError: If the weights are missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} has no {WEIGHTS_FILE}: give the folder of a saved model")
    try:
        with safe_open(path, framework="pt") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {str(error).splitlines()[0]}") from None
    if any(name.startswith("classifier.") for name in names):
        return "classification"
    return "pretraining" if any(name.startswith("decoder.") for name in names) else "encoder"


def _require(folder: Path, wanted: Kind, *, cure: str) -> None:
    holds = {"classification": "a classifier", "encoder": "a bare encoder", "pretraining": "a pre-trained network"}
    kind = folder_kind(folder)
    if kind != wanted:
        lacks = {"classification": "a classifier", "pretraining": "a decoder"}[wanted]
        raise WeightsError(f"{folder} holds {holds[kind]}, without {lacks}: {cure}")


Loaded = TypeVar("Loaded", bound=VideoMAEPreTrainedModel)


def _load(cls: type[Loaded], folder: Path, clip: ClipConfig | None, device: DeviceName) -> LoadedModel[Loaded]:
    place = pick_device(device)
    model = cls.from_pretrained(folder)
    clip = clip or stored_clip(folder, model.config)
    check_clip(clip, model.config)
    processor = VideoMAEImageProcessor.from_pretrained(folder)
    return LoadedModel(folder, model.to(place).eval(), processor, clip)
