"""The model that a run starts from where its weights are not random, and whether it is what the recipe says."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, TypeVar

from torch import nn

from videomae.errors import ConfigError
from videomae.model.base import VideoMAEPreTrainedModel, draw_linear, drawn_modules
from videomae.model.config import VideoMAEConfig
from videomae.presets import PRESETS
from videomae.recipes.schema import DEFAULT_PRESET, NetworkConfig
from videomae.weights.report import LoadReport

NARROWEST_RELEASED = 384
"""Width of ViT-S; encoders that are narrower are drawn in another way, see `initialize_narrow`."""

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel)

# No tensor depends on these, so that an override of one changes the training and not what init is.
TRAINING_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "norm_pix_loss")
# What a recipe says of a model that init decided: with these fields, and without init, the same model would be built.
ENCODER_FIELDS = (
    *("patch_size", "tubelet_size", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "hidden_act", "layer_norm_eps", "head_layer_norm_eps", "qv_bias", "init_values"),
    *("use_cls_token", "position_grid", "hidden_dropout_prob", "attention_probs_dropout_prob"),
)
DECODER_FIELDS = (
    *("decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads"),
    *("decoder_intermediate_size", "norm_pix_loss", "drop_path_rate"),
)


def load_initial(
    cls: type[Model], source: str, settings: NetworkConfig, *, has_decoder: bool, **options: Any
) -> tuple[Model, LoadReport]:
    """Load a model to go on training.

    Args:
        cls: The model class to train.
        source: Folder of a model or of a run, weights file, or Hub name; see `from_pretrained`.
        settings: What the recipe says of the model: overrides that no tensor depends on are applied, the rest must
            be what `source` is.
        has_decoder: Whether the recipe's decoder sizes mean anything.
        **options: As for `from_pretrained`.

    Returns:
        The model in train mode, in float32, and where each of its tensors came from.

    Raises:
        WeightsError: If there is nothing to load, or what there is is damaged or does not fit.
        ConfigError: If an option does not fit the model, or the recipe contradicts it.
    """
    settings.check_overrides(options)
    training = {name: value for name, value in settings.overrides.items() if name in TRAINING_FIELDS}
    with warnings.catch_warnings():
        # Random heads, repairs and ignored tensors are in the report, which is printed.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"videomae\.")
        model, report = cls.from_pretrained(source, output_loading_info=True, **{**training, **options})
    check_agreement(settings, model.config, source=source, has_decoder=has_decoder)
    return model.train(), report


def check_agreement(settings: NetworkConfig, config: VideoMAEConfig, *, source: str, has_decoder: bool) -> None:
    """Compare a recipe's explicit preset and overrides with the configuration of what init loaded.

    Raises:
        ConfigError: If a field differs, or is unknown.
    """
    preset: dict[str, Any] = {} if settings.preset is None else PRESETS[settings.preset]
    asked = {name: (value, f"model.preset {settings.preset}") for name, value in preset.items()}
    asked |= {name: (value, "model.overrides") for name, value in settings.overrides.items()}
    rows = []
    for name, (value, where) in asked.items():
        if not hasattr(config, name):
            config.replace(**{name: value})  # raises, with the name that was meant
        found = _plain(getattr(config, name))
        if found != _plain(value) and (has_decoder or not name.startswith("decoder_")):
            rows.append(f"{name} is {found} in init, {_plain(value)} by {where}")
    if rows:
        raise ConfigError(
            f"init {source} is another model than the recipe asks for ({'; '.join(rows)}): give --model.preset null "
            "--model.overrides '{}' to take init as it is, or --init null to start from random weights"
        )


def as_built(
    settings: NetworkConfig, config: VideoMAEConfig, *, init: str | None, has_decoder: bool
) -> NetworkConfig:
    """Return what the recipe that is saved with a run says of the model.

    Without `init`, the preset and overrides are the whole truth. With it, every field that decides what was built is
    written out, so that the recipe tells it without init's file.

    Args:
        settings: As the recipe was read; it agrees with `config`.
        config: Of the model that was built.
        init: Where the weights came from; None: they are random.
        has_decoder: Whether a decoder was built.
    """
    if init is None:
        return dataclasses.replace(settings, preset=settings.preset or DEFAULT_PRESET)
    names = (*ENCODER_FIELDS, *DECODER_FIELDS) if has_decoder else ENCODER_FIELDS
    built = {name: _plain(getattr(config, name)) for name in names if getattr(config, name) is not None}
    return dataclasses.replace(settings, overrides={**settings.overrides, **built})


def initialize_narrow(model: VideoMAEPreTrainedModel) -> None:
    """Draw an encoder anew, from Xavier's uniform distribution, if it is narrower than any released one.

    The released sizes keep the truncated normal of standard deviation 0.02, as published. It is Xavier's at a width
    of 2,500; the narrower a model, the less of its input passes, and the later it trains (docs/results.md).
    """
    if model.config.hidden_size < NARROWEST_RELEASED:
        for module in drawn_modules(model):
            draw_linear(module, nn.init.xavier_uniform_)


def origin_lines(report: LoadReport | None) -> list[str]:
    """Tell where the weights came from; None: all are random."""
    return report.lines() if report else ["weights: randomly initialized"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
