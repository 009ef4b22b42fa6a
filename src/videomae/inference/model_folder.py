"""The networks that this room works with, loaded with all that belongs to them.

Knows nothing of what they are used for.
"""

from __future__ import annotations

import os

from videomae.data.clip_record import clip_from_record, record_from_clip
from videomae.data.trained_model import LoadedModel, load_trained, source_kind
from videomae.engine.precision import DeviceName
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.video.sampling import ClipConfig

__all__ = [
    "LoadedModel",
    "clip_from_record",
    "load_classifier",
    "load_encoder",
    "load_pretraining",
    "record_from_clip",
    "source_kind",
]


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
