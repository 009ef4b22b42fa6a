"""What a configuration may hold: types, ranges and divisions. Importing it does not import torch."""

from __future__ import annotations

from typing import Any

from videomae.errors import ConfigError

# Activations by transformers' names: the class in torch.nn, and its arguments.
ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("GELU", {}),
    "gelu_pytorch_tanh": ("GELU", {"approximate": "tanh"}),
    "gelu_new": ("GELU", {"approximate": "tanh"}),
    "relu": ("ReLU", {}),
    "silu": ("SiLU", {}),
    "swish": ("SiLU", {}),
}

_COUNTS = (
    "num_channels num_frames tubelet_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
    "decoder_hidden_size decoder_num_hidden_layers decoder_num_attention_heads decoder_intermediate_size"
).split()
_FRACTIONS = "hidden_dropout_prob attention_probs_dropout_prob drop_path_rate classifier_dropout init_values".split()

_SWITCHES = (
    "qv_bias use_mean_pooling norm_pix_loss use_cls_token output_attentions output_hidden_states return_dict"
).split()


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def check(config: Any) -> None:
    """Refuse a configuration whose fields are of the wrong type, out of range or contradict each other.

    Raises:
        ConfigError: For the first of them.
    """
    for name in ("image_size", "patch_size"):
        value = getattr(config, name)
        if isinstance(value, list):
            value = tuple(value)
            setattr(config, name, value)
        if not (is_int(value) or (isinstance(value, tuple) and len(value) == 2 and all(map(is_int, value)))):
            raise ConfigError(f"config.{name} is {value!r}; it must be a whole number or a (height, width) pair")
        if min(pair(value)) < 1:
            raise ConfigError(f"config.{name} is {value!r}; it must be positive")
    for name in _COUNTS:
        value = getattr(config, name)
        if not is_int(value) or value < 1:
            raise ConfigError(f"config.{name} is {value!r}; it must be a whole number of at least 1")
    for name in _FRACTIONS:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            raise ConfigError(f"config.{name} is {value!r}; it must be in [0, 1)")
    for name in ("layer_norm_eps", "head_layer_norm_eps", "initializer_range"):
        value = getattr(config, name)
        if name == "head_layer_norm_eps" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0.0:
            raise ConfigError(f"config.{name} is {value!r}; it must be a positive number")
    for name in _SWITCHES:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"config.{name} is {getattr(config, name)!r}; it must be true or false")
    if config.hidden_act not in ACTIVATIONS:
        raise ConfigError(f"config.hidden_act is {config.hidden_act!r}; choose one of {', '.join(ACTIVATIONS)}")
    _check_grid(config)
    _check_divisions(config)


def _check_grid(config: Any) -> None:
    grid: object = config.position_grid
    if isinstance(grid, list):
        grid = tuple(grid)
        setattr(config, "position_grid", grid)  # noqa: B010
    if grid is not None and not (
        isinstance(grid, tuple) and len(grid) == 3 and all(is_int(one) and one > 0 for one in grid)
    ):
        raise ConfigError(f"config.position_grid is {grid!r}; it must be (frames, rows, columns) of tokens, or None")


def _check_divisions(config: Any) -> None:
    for side, size, step in zip(
        ("height", "width"), config.image_height_width, config.patch_height_width, strict=True
    ):
        if size % step:
            raise ConfigError(
                f"config.image_size has {side} {size}, which config.patch_size {step} does not divide: "
                f"use a multiple of {step}"
            )
    for whole, part in (
        ("num_frames", "tubelet_size"),
        ("hidden_size", "num_attention_heads"),
        ("decoder_hidden_size", "decoder_num_attention_heads"),
    ):
        if getattr(config, whole) % getattr(config, part):
            raise ConfigError(
                f"config.{whole} {getattr(config, whole)} is not divisible by config.{part} "
                f"{getattr(config, part)}: change one of them"
            )


def is_int(value: object) -> bool:
    """Return whether a value is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)
