"""How fast a device multiplies matrices, measured: what no training step exceeds.

The operands are written out by a formula. The state of torch's random generators is neither read nor changed.
"""

from __future__ import annotations

import functools
import time

import torch
from torch import Tensor

PROBE_SECONDS = 0.2  # of repeating at the final size
SMALLEST, LARGEST = 256, 8192  # sides of the square matrices
LONG_SECONDS = 0.01  # of one multiplication: longer, and starting it counts for nothing
REPEATS = {
    "cpu": 1
}  # multiplications in a measurement; other devices run ahead of the host, which is waited for once
OTHER_REPEATS = 8


@functools.cache
def peak_flops_per_second(kind: str, dtype: torch.dtype) -> float:
    """Measure the fastest multiplication of large square matrices; once for a process, in well under a second.

    The sides double until one takes 10 ms, so that a fast device is measured at its full speed and a slow one soon.
    A multiply-add counts 2.

    Args:
        kind: Type of the device, such as `cuda`; of several GPUs the current one.
        dtype: Of the operands.
    """
    repeats = REPEATS.get(kind, OTHER_REPEATS)
    best, size = 0.0, SMALLEST
    while True:
        left, right = _operands(size, kind, dtype)
        _seconds(left, right, 1)  # the first call prepares the kernel
        seconds = _seconds(left, right, repeats)
        best = max(best, 2.0 * size**3 / seconds)
        if seconds >= LONG_SECONDS or size >= LARGEST:
            break
        size *= 2
    until = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < until:
        best = max(best, 2.0 * size**3 / _seconds(left, right, repeats))
    return best


def _operands(size: int, kind: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return two matrices of many different values in [-1, 1]: of equal ones, GPUs are faster than of real ones."""
    wave = torch.arange(size * size, device=kind, dtype=torch.float32).sin_().view(size, size)
    return wave.to(dtype), wave.t().contiguous().to(dtype)


def _seconds(left: Tensor, right: Tensor, repeats: int) -> float:
    """Return the seconds of one multiplication, the mean of some."""
    start = time.perf_counter()
    for _ in range(repeats):
        product = torch.mm(left, right)
    product[0, 0].item()  # waits for the device
    return (time.perf_counter() - start) / repeats
