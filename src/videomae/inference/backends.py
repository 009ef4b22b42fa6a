"""What computes a model for inference, and in which precision: torch or OpenVINO, floats or 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from videomae.engine.configs import Backend, InferencePrecision
from videomae.engine.precision import compute_dtype
from videomae.errors import ConfigError
from videomae.inference.int8 import in_int8
from videomae.inference.openvino_blocks import in_openvino

Model = TypeVar("Model", bound=nn.Module)

CPU = torch.device("cpu")


def in_precision(
    model: Model, precision: InferencePrecision, backend: Backend = "torch", *, clips: Iterable[Tensor] = ()
) -> tuple[Model, torch.dtype]:
    """Return what to call for a model's outputs, and the dtype of `autocast` around it.

    Args:
        model: For inference; it is not changed.
        precision: As in `compute_dtype`, and int8.
        backend: What computes the blocks.
        clips: Where `needs_clips`: `[B, T, C, H, W]` each, at least one, like those that will be computed.

    Raises:
        ConfigError: If the precision or the backend is unknown, or the model's device does not compute so.
    """
    check_backend_name(backend)
    device = next(model.parameters()).device
    dtype = compute_dtype("auto", CPU) if precision == "int8" else compute_dtype(precision, device)
    if backend == "openvino":
        return in_openvino(model, dtype, clips if precision == "int8" else None), dtype
    return (in_int8(model) if precision == "int8" else model), dtype


def check_backend_name(backend: Backend) -> None:
    """Raise ConfigError if a backend is unknown."""
    if backend not in get_args(Backend):
        raise ConfigError(
            f"backend is {backend!r}; the known ones are {', '.join(get_args(Backend))}: use one of them"
        )


def needs_clips(precision: InferencePrecision, backend: Backend) -> bool:
    """Return whether the ranges of 8-bit integers are found on some clips, before anything is computed in them."""
    return precision == "int8" and backend == "openvino"


def settled_precision(precision: InferencePrecision, device: torch.device) -> InferencePrecision:
    """Return bf16, fp32 or int8: what `in_precision` makes of a precision on a device."""
    if precision == "int8":
        return "int8"
    return "bf16" if compute_dtype(precision, device) == torch.bfloat16 else "fp32"
