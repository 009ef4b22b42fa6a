"""Which device to compute on, and in which dtype: what the processor really has.

Weights, gradients and optimizer state stay float32; bfloat16 is for the matrix multiplications inside `autocast`.
There is no float16 on purpose: it needs loss scaling, and the original's float16 training is known to overflow.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch

from videomae.engine.configs import DeviceName as DeviceName
from videomae.engine.configs import Precision as Precision
from videomae.errors import ConfigError

BF16_CUDA_CAPABILITY = (
    8,
    0,
)  # the first generation with bfloat16 matrix units; older ones emulate it, slower
# Names in torch.cpu.get_capabilities(): x86 (avx512_bf16, amx_bf16), then 64-bit ARM (bf16, sve_bf16).
BF16_CPU_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# How a user holds oneDNN, which multiplies bfloat16, back to older instructions; the names below have no bfloat16.
ONEDNN_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
ONEDNN_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


def pick_device(name: DeviceName) -> torch.device:
    """Return the device to compute on.

    Args:
        name: auto takes CUDA where there is one, else MPS, else the CPU.

    Raises:
        ConfigError: If the name is unknown or this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    if name not in available:
        raise ConfigError(f"device is {name!r}; the known ones are auto, cpu, cuda and mps: use one of them")
    if not available[name]:
        present = ", ".join(kind for kind in available if available[kind])
        raise ConfigError(f"device is {name!r}, which torch does not find here; it finds {present}: use device auto")
    return torch.device(name)


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the compute dtype of a step, that of its matrix multiplications.

    Args:
        precision: auto takes bfloat16 where the processor multiplies it in hardware (CUDA from capability
            8.0, CPUs with AVX512-BF16, AMX or ARM's bf16) and float32 elsewhere, on MPS always; bf16 is
            obeyed everywhere, also where it is emulated and slow.
        device: Where the step runs.

    Returns:
        `torch.bfloat16` or `torch.float32`.

    Raises:
        ConfigError: If the precision is unknown.
    """
    match precision:
        case "fp32":
            return torch.float32
        case "bf16":
            return torch.bfloat16
        case "auto":
            return torch.bfloat16 if has_bf16(device) else torch.float32
    raise ConfigError(f"precision is {precision!r}; the known ones are auto, bf16 and fp32: use one of them")


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware, as far as torch uses it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_CUDA_CAPABILITY
    # A torch built without oneDNN has no matrix multiplication that uses the processor's instructions.
    has_onednn: bool = torch.backends.mkldnn.is_available()
    is_held_back = any(os.environ.get(name, "").upper() in ONEDNN_WITHOUT_BF16 for name in ONEDNN_LIMITS)
    return device.type == "cpu" and has_onednn and not is_held_back and _cpu_has_bf16()


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Return a context in which matrix multiplications run in `dtype`.

    Args:
        device: Where the step runs.
        dtype: From `compute_dtype`; float32 switches off any autocast around it.

    Raises:
        ConfigError: If the dtype is another one.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ConfigError(f"autocast was asked for {dtype}; steps run in bfloat16 or float32: use one of them")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _cpu_has_bf16() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(found.get(name, False) for name in BF16_CPU_CAPABILITIES)
    # Older torch has private questions only, about x86; a name that is gone means no.
    questions = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(question() for question in questions if question is not None)
