"""transformers' Auto classes and its `pipeline`, made to use the models of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videomae.errors import ConfigError
from videomae.model import config
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining

# The Auto classes of transformers by the model that they are to make.
AUTO_CLASSES: dict[str, type[Any]] = {
    "AutoModel": VideoMAEModel,
    "AutoModelForPreTraining": VideoMAEForPreTraining,
    "AutoModelForVideoClassification": VideoMAEForVideoClassification,
}


def register_auto_classes() -> None:
    """Make transformers' Auto classes and its `pipeline` use the models of this package, in this process.

    Every folder and repository of a VideoMAE then opens with `AutoModelForVideoClassification.from_pretrained` and
    the other Auto classes as with `from_pretrained` of the classes here, repairs and warnings included. Processors
    stay transformers' own, which read the files of this package.

    Raises:
        ConfigError: If transformers is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ConfigError("register_auto_classes needs transformers: pip install transformers") from None

    transformers.AutoConfig.register(VideoMAEConfig.model_type, VideoMAEConfig, exist_ok=True)
    for name, model_class in AUTO_CLASSES.items():
        for config_class in (config.VideoMAEConfig, VideoMAEConfig):
            getattr(transformers, name).register(config_class, model_class, exist_ok=True)


class VideoMAEConfig(config.VideoMAEConfig):
    """What `AutoConfig` makes: what a file says, and which of it the caller said instead.

    Loading takes only the latter from it and reads the file itself, so that the file's known faults are repaired.
    Its name is that of its base, for transformers compares the names.
    """

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **settings: Any) -> Any:
        """Return the configuration, and with `return_unused_kwargs` also the arguments that are no fields."""
        with_unused = settings.pop("return_unused_kwargs", False)
        source = settings.pop("name_or_path", "")
        known = cls.known_keys()
        given = {name: value for name, value in settings.items() if name in known}
        kept = {name: value for name, value in values.items() if name in known}
        made = super().from_dict(kept, **given)
        vars(made).update(caller_settings=given, name_or_path=str(source))
        unused = {name: value for name, value in settings.items() if name not in known}
        return (made, unused) if with_unused else made
