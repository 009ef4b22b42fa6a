"""Masked-autoencoder pre-training, fine-tuning, evaluation and use of video transformers (VideoMAE).

Every public name, and the module that owns it. A name's module is imported when the name is first asked for, so
that `import videomae` and the command's `--help` wait for nothing. This file does no work of its own.

Evaluation is `videomae.evaluation.evaluator.evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videomae.compat.auto_classes import register_auto_classes
    from videomae.compat.pipeline import pipeline
    from videomae.compat.video_processor import VideoMAEVideoProcessor
    from videomae.errors import (
        CheckpointError,
        ConfigError,
        ManifestError,
        RunError,
        VideoMAEError,
        VideoReadError,
        WeightsError,
    )
    from videomae.inference.features import extract_features
    from videomae.inference.predictor import Predictor
    from videomae.inference.reconstruction import reconstruct
    from videomae.masking import MaskConfig, draw_masks
    from videomae.model.base import VideoMAEPreTrainedModel
    from videomae.model.classification import VideoMAEForVideoClassification
    from videomae.model.config import VideoMAEConfig
    from videomae.model.encoder import VideoMAEModel
    from videomae.model.pretraining import VideoMAEForPreTraining
    from videomae.processing.image_processor import VideoMAEFeatureExtractor, VideoMAEImageProcessor
    from videomae.timeline.configs import TimelineConfig
    from videomae.timeline.timeline import Timeline
    from videomae.train.finetune import finetune
    from videomae.train.pretrain import pretrain
    from videomae.video.decode import VideoReader
    from videomae.video.sampling import ClipConfig

# A literal, kept equal to pyproject.toml by a test: importlib.metadata would cost about 40 ms at every start.
__version__ = "0.1.0"

# Three lists name the same things: this one for the reader and `import *`, the one above for type checkers,
# the one below for Python, which takes the model classes from the table of kinds. A test holds them equal.
__all__ = [
    "CheckpointError",
    "ClipConfig",
    "ConfigError",
    "ManifestError",
    "MaskConfig",
    "Predictor",
    "RunError",
    "Timeline",
    "TimelineConfig",
    "VideoMAEConfig",
    "VideoMAEError",
    "VideoMAEFeatureExtractor",
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEImageProcessor",
    "VideoMAEModel",
    "VideoMAEPreTrainedModel",
    "VideoMAEVideoProcessor",
    "VideoReadError",
    "VideoReader",
    "WeightsError",
    "__version__",
    "draw_masks",
    "extract_features",
    "finetune",
    "pipeline",
    "pretrain",
    "reconstruct",
    "register_auto_classes",
]

_MODULE_OF = {
    "CheckpointError": "videomae.errors",
    "ClipConfig": "videomae.video.sampling",
    "ConfigError": "videomae.errors",
    "ManifestError": "videomae.errors",
    "MaskConfig": "videomae.masking",
    "Predictor": "videomae.inference.predictor",
    "RunError": "videomae.errors",
    "Timeline": "videomae.timeline.timeline",
    "TimelineConfig": "videomae.timeline.configs",
    "VideoMAEConfig": "videomae.model.config",
    "VideoMAEError": "videomae.errors",
    "VideoMAEFeatureExtractor": "videomae.processing.image_processor",
    "VideoMAEImageProcessor": "videomae.processing.image_processor",
    "VideoMAEPreTrainedModel": "videomae.model.base",
    "VideoMAEVideoProcessor": "videomae.compat.video_processor",
    "VideoReadError": "videomae.errors",
    "VideoReader": "videomae.video.decode",
    "WeightsError": "videomae.errors",
    "draw_masks": "videomae.masking",
    "extract_features": "videomae.inference.features",
    "finetune": "videomae.train.finetune",
    "pipeline": "videomae.compat.pipeline",
    "pretrain": "videomae.train.pretrain",
    "reconstruct": "videomae.inference.reconstruction",
    "register_auto_classes": "videomae.compat.auto_classes",
}


if not TYPE_CHECKING:  # seen by a type checker, it would make every misspelt name look public

    def __getattr__(name: str) -> object:
        """Import the module that owns a public name, on the name's first use."""
        owners = _owners()
        if name not in owners:
            raise AttributeError(f"module 'videomae' has no attribute {name!r}")
        value = getattr(import_module(owners[name]), name)
        globals()[name] = value  # the next use finds the name itself and never comes here
        return value


def _owners() -> dict[str, str]:
    """Return the module of every public name."""
    from videomae.weights.kinds import KINDS

    return {**_MODULE_OF, **{kind.class_name: kind.module for kind in KINDS.values()}}


def __dir__() -> list[str]:
    """List the public names, imported or not, beside what the module holds already."""
    return sorted({*globals(), *__all__, *_owners()})
