"""Sizes and switches of the model, with the field names of transformers' VideoMAE.

Importing it does not import torch. A configuration is checked when it is made and never written to by the library.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from videomae.errors import ConfigError
from videomae.model.config_checks import ACTIVATIONS as ACTIVATIONS
from videomae.model.config_checks import check, is_int, pair
from videomae.presets import PRESETS
from videomae.weights.config_keys import UPSTREAM_KEYS
from videomae.weights.json_files import json_text, write_json, write_text_file

UPSTREAM_EPS = 1e-12  # transformers' default; there the norms before the heads use torch's default instead
TORCH_EPS = 1e-5


def _two_labels() -> dict[int, str]:
    return {0: "LABEL_0", 1: "LABEL_1"}


@dataclass(init=False)
class VideoMAEConfig:
    """Everything that fixes the shape and the arithmetic of a VideoMAE model.

    Field names and defaults are those of transformers' `VideoMAEConfig`; the fields from `drop_path_rate` on
    exist here only. Keyword arguments only; `qkv_bias` and `num_labels` are accepted as upstream spells them.

    Raises:
        ConfigError: If a field is unknown, of the wrong type, out of range or contradicts another.
    """

    model_type: ClassVar[str] = "videomae"
    # What configurations of transformers have besides; no file of this package says it by way of the configuration.
    name_or_path: ClassVar[str] = ""
    sub_configs: ClassVar[dict[str, Any]] = {}
    task_specific_params: ClassVar[None] = None
    caller_settings: ClassVar[Mapping[str, Any] | None] = None  # see `videomae.compat.auto_classes`
    architectures: ClassVar[list[str] | None] = None
    dtype: ClassVar[Any] = None
    torch_dtype: ClassVar[Any] = None
    _attn_implementation: ClassVar[str] = "sdpa"

    image_size: int | tuple[int, int] = 224
    """Height and width in pixels; one number for a square."""
    patch_size: int | tuple[int, int] = 16
    """Height and width of a tubelet in pixels; one number for a square."""
    num_channels: int = 3
    """C."""
    num_frames: int = 16
    """T, frames of a clip at the native grid."""
    tubelet_size: int = 2
    """Frames of a tubelet."""
    hidden_size: int = 768
    """D, encoder width."""
    num_hidden_layers: int = 12
    """Encoder depth."""
    num_attention_heads: int = 12
    """Encoder heads; divides hidden_size."""
    intermediate_size: int = 3072
    """Width of the encoder's MLP."""
    hidden_act: str = "gelu"
    """Activation of the MLPs; gelu is the exact one."""
    hidden_dropout_prob: float = 0.0
    """Dropout after each projection."""
    attention_probs_dropout_prob: float = 0.0
    """Dropout on attention probabilities."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights of the classifier and the bare encoder."""
    layer_norm_eps: float = UPSTREAM_EPS
    """Epsilon of every LayerNorm but those before the heads; the original models use 1e-6."""
    qv_bias: bool = True
    """Biases on queries and values; keys never have one."""
    use_mean_pooling: bool = True
    """Classify from the mean over tokens; False: a final LayerNorm and then one token."""
    decoder_num_attention_heads: int = 6
    """Decoder heads; divides decoder_hidden_size."""
    decoder_hidden_size: int = 384
    """E, decoder width."""
    decoder_num_hidden_layers: int = 4
    """Decoder depth."""
    decoder_intermediate_size: int = 1536
    """Width of the decoder's MLP."""
    norm_pix_loss: bool = True
    """Predict pixels normalized per tubelet and channel."""
    drop_path_rate: float = 0.0
    """Stochastic depth: rate of the last block, rising linearly from 0."""
    classifier_dropout: float = 0.0
    """Dropout before the classifier."""
    init_values: float = 0.0
    """Layer scale: first value of the per-channel gains; 0 means no layer scale."""
    use_cls_token: bool = False
    """A learned token before the sequence, used for classification; no published model has one."""
    head_layer_norm_eps: float | None = None
    """Epsilon of the norms before the heads (`fc_norm`, `decoder.norm`); None: see `head_norm_eps`."""
    position_grid: tuple[int, int, int] | None = None
    """(frames, rows, columns) of tokens that the model was trained on, from whose position codes those of other grids
    are interpolated; None: the native grid."""
    problem_type: str | None = None
    """regression, single_label_classification, multi_label_classification, or None: judged from the labels."""
    id2label: dict[int, str] = field(default_factory=_two_labels)
    """Label names by label id."""
    label2id: dict[str, int] = field(default_factory=dict)
    """Label ids by label name."""
    output_attentions: bool = False
    """Return attention probabilities unless the call says otherwise."""
    output_hidden_states: bool = False
    """Return hidden states unless the call says otherwise."""
    return_dict: bool = True
    """Return output objects; False: plain tuples."""

    def __init__(self, **settings: Any) -> None:
        """Take any of the fields by keyword, and `qkv_bias` or `num_labels`."""
        for one in fields(self):
            default = one.default_factory() if callable(one.default_factory) else one.default
            setattr(self, one.name, default)
        if "qkv_bias" in settings:
            settings["qv_bias"] = _same("qkv_bias", settings.pop("qkv_bias"), "qv_bias", settings)
        num_labels = settings.pop("num_labels", None)
        names = {one.name for one in fields(self)}
        for name, value in settings.items():
            if name not in names:
                raise ConfigError(f"unknown config field {name!r}{_nearest(name, names)}")
            setattr(self, name, value)
        self._settle_labels(num_labels, given=settings)
        check(self)

    @property
    def num_labels(self) -> int:
        """K, the number of classes."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        """Name the classes anew where their number changes, as upstream; a built model keeps its classes."""
        if count != self.num_labels:
            self._settle_labels(count, given={})

    @property
    def qkv_bias(self) -> bool:
        """The name older configurations use for `qv_bias`."""
        return self.qv_bias

    @property
    def _name_or_path(self) -> str:
        """The name older programs use for `name_or_path`."""
        return self.name_or_path

    @property
    def use_return_dict(self) -> bool:
        """The name older programs use for `return_dict`."""
        return self.return_dict

    @property
    def extra_attributes(self) -> dict[str, Any]:
        """What was assigned besides the fields: kept in files and copies, and of no effect."""
        known = {one.name for one in fields(self)}
        return {
            name: value
            for name, value in vars(self).items()
            if name not in known and not hasattr(VideoMAEConfig, name)
        }

    @property
    def head_norm_eps(self) -> float:
        """Epsilon of `fc_norm` and `decoder.norm`.

        `head_layer_norm_eps` where it is set. Otherwise, with transformers' `layer_norm_eps` of 1e-12, torch's
        1e-5, because that is what transformers computes with; with any other value, that value, because the
        original models have one epsilon everywhere.
        """
        if self.head_layer_norm_eps is not None:
            return self.head_layer_norm_eps
        return TORCH_EPS if self.layer_norm_eps == UPSTREAM_EPS else self.layer_norm_eps

    @property
    def image_height_width(self) -> tuple[int, int]:
        """Native height and width in pixels."""
        return pair(self.image_size)

    @property
    def patch_height_width(self) -> tuple[int, int]:
        """Tubelet height and width in pixels."""
        return pair(self.patch_size)

    @property
    def values_per_tubelet(self) -> int:
        """P, the length of one prediction."""
        height, width = self.patch_height_width
        return self.tubelet_size * height * width * self.num_channels

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of the tokens of a native clip."""
        (height, width), (rows, columns) = self.image_height_width, self.patch_height_width
        return self.num_frames // self.tubelet_size, height // rows, width // columns

    @classmethod
    def preset(cls, name: str, **settings: Any) -> VideoMAEConfig:
        """Return the configuration of a published size.

        Args:
            name: small, base, large, huge or giant (patch 14).
            **settings: Fields that differ from the preset.

        Raises:
            ConfigError: If the name is unknown, or a field is bad.
        """
        if name not in PRESETS:
            raise ConfigError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **settings})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as transformers writes them, with both spellings of the bias switch."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["image_size"] = _plain(self.image_size)
        values["patch_size"] = _plain(self.patch_size)
        values["position_grid"] = None if self.position_grid is None else list(self.position_grid)
        values["id2label"] = {str(number): name for number, name in self.id2label.items()}
        values["qkv_bias"] = self.qv_bias
        values |= self.extra_attributes
        values["model_type"] = self.model_type
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """Return those entries of `to_dict` that differ from the defaults, and the model type."""
        defaults = {**VideoMAEConfig().to_dict(), "model_type": None}
        return {name: value for name, value in self.to_dict().items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **settings: Any) -> VideoMAEConfig:
        """Build a configuration from the contents of a `config.json`; `settings` win.

        Where they give another number of frames or size, the grid of the file is kept as `position_grid`, so that
        positions are interpolated; `position_grid=None` among them gives a fresh table instead, as transformers.

        Raises:
            ConfigError: If a key is neither a field nor one of transformers' general keys.
        """
        model_type = values.get("model_type", "videomae")
        if model_type != "videomae":
            raise ConfigError(f"model_type is {model_type!r}; this package reads 'videomae' configurations only")
        known = cls.known_keys()
        kept = {
            name: value
            for name, value in values.items()
            if name in known or (name not in UPSTREAM_KEYS and not name.startswith("_"))
        }
        if kept.get("id2label") and "num_labels" in kept:
            del kept["num_labels"]
        if {"qv_bias", "qkv_bias"} & settings.keys():
            kept = {name: value for name, value in kept.items() if name not in ("qv_bias", "qkv_bias")}
        if "id2label" in settings or "num_labels" in settings:
            kept.pop("label2id", None)
            kept.pop("id2label", None)
        config = cls(**{**kept, **settings})
        if {"num_frames", "image_size"} & settings.keys() and "position_grid" not in settings:
            saved = cls(**{name: value for name, value in kept.items() if name in _GRID_FIELDS})
            trained = saved.position_grid or saved.token_grid
            config.position_grid = None if trained == config.token_grid else trained
        return config

    @classmethod
    def known_keys(cls) -> frozenset[str]:
        """Return what a `config.json` may say about the model."""
        return frozenset(one.name for one in fields(cls)) | {"qkv_bias", "num_labels"}

    def to_json_string(self) -> str:
        """Return the configuration as JSON text, keys sorted."""
        return json_text(self.to_dict())

    def to_json_file(self, path: str | Path) -> None:
        """Write `to_json_string` to a file, atomically."""
        write_text_file(Path(path), self.to_json_string())

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **settings: Any) -> VideoMAEConfig:
        """Read the configuration of a saved model, without its weights.

        What only the weights show (see `docs/weights.md`) is found by the models' `from_pretrained` alone; the
        number of heads of the published small models is corrected here too.

        Args:
            source: A model folder, the folder of a finished run, a `config.json`, or `owner/name` on the Hub.
            **settings: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder` for the
                Hub; and fields that win over the file's.

        Raises:
            WeightsError: If there is no such file, it is no JSON object, or of another family of models.
            ConfigError: If a field is unknown or out of range.
        """
        from videomae.weights.declared import read_repaired

        declared, given = read_repaired(source, settings, known=cls.known_keys())
        try:
            config = cls.from_dict(declared.values, **given)
        except ConfigError as error:
            raise ConfigError(f"{declared.path}: {error}") from None
        config.keep_attributes({**declared.extra, "name_or_path": str(source)})
        return config

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write `config.json` into a folder, which is made if it is missing, atomically.

        Raises:
            WeightsError: If it cannot be written.
        """
        from videomae.weights.sources import CONFIG_FILE

        write_json(Path(save_directory) / CONFIG_FILE, self.to_dict())

    def keep_attributes(self, values: Mapping[str, Any]) -> None:
        """Assign what a file says besides the fields; what means something here already is left as it is."""
        for name, value in values.items():
            if name == "name_or_path" or not hasattr(VideoMAEConfig, name):
                vars(self)[name] = value

    def update(self, values: Mapping[str, Any]) -> None:
        """Change some fields, as upstream; a model that is built already keeps its sizes and switches.

        Raises:
            ConfigError: If a field is unknown or its value is bad; then nothing is changed.
        """
        vars(self).update(vars(self.replace(**values)))

    def replace(self, **settings: Any) -> VideoMAEConfig:
        """Return a copy with some fields changed, checked anew."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if "num_labels" in settings or "id2label" in settings:
            del values["id2label"], values["label2id"]
        if "qkv_bias" in settings:
            del values["qv_bias"]
        config = type(self)(**{**values, **settings})
        vars(config).update(self.extra_attributes)
        return config

    def _settle_labels(self, num_labels: int | None, *, given: Mapping[str, Any]) -> None:
        if given.get("id2label"):
            self.id2label = {int(number): str(name) for number, name in self.id2label.items()}
            if num_labels is not None and num_labels != len(self.id2label):
                raise ConfigError(f"num_labels is {num_labels}, but id2label names {len(self.id2label)} classes")
        elif num_labels is not None:
            if not is_int(num_labels) or num_labels < 1:
                raise ConfigError(f"config.num_labels is {num_labels!r}; it must be a whole number of at least 1")
            self.id2label = {number: f"LABEL_{number}" for number in range(num_labels)}
        elif given.get("label2id"):
            self.id2label = {int(number): name for name, number in given["label2id"].items()}
        else:
            self.id2label = _two_labels()
        if not given.get("label2id"):
            self.label2id = {name: number for number, name in self.id2label.items()}


_GRID_FIELDS = frozenset("image_size patch_size num_frames tubelet_size position_grid".split())


def _plain(size: int | tuple[int, int]) -> int | list[int]:
    return size if isinstance(size, int) else list(size)


def _same(alias: str, value: Any, name: str, settings: Mapping[str, Any]) -> Any:
    if name in settings and settings[name] != value:
        raise ConfigError(f"{alias} is {value!r} but {name} is {settings[name]!r}: they are one setting, give one")
    return value


def _nearest(name: str, names: set[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f": did you mean {close[0]!r}?" if close else ": see VideoMAEConfig for the fields"
