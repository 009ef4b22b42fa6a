"""Clocks and memory: functions timed in turn in one process, and the peak memory of one call.

Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")  # "5" written here sets the process's peak to what it holds now


@dataclass(frozen=True)
class Times:
    """Seconds of each round, on the clock of the wall and on that of the processor (all threads together)."""

    wall: tuple[float, ...]
    """Wall-clock seconds of each round."""
    processor: tuple[float, ...]
    """Processor seconds of each round; meaningless for work on a GPU."""


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is: the median over rounds of theirs / ours, and its range."""

    median: float
    """Median of the rounds."""
    lowest: float
    """Worst round."""
    highest: float
    """Best round."""


def time_in_turn(*runs: Callable[[], object], warmup: int, rounds: int, device: torch.device) -> tuple[Times, ...]:
    """Time functions in turn; every other round in the opposite order, so that a drift hits all alike.

    Args:
        *runs: Each is called once a round.
        warmup: Rounds before the clock starts.
        rounds: Rounds that count.
        device: Waited for before and after each call.

    Returns:
        The times of each function.
    """
    seconds: tuple[list[tuple[float, float]], ...] = tuple([] for _ in runs)
    for number in range(warmup + rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for place in order:
            one = _seconds(runs[place], device)
            if number >= warmup:
                seconds[place].append(one)
    return tuple(Times(*(tuple(clock) for clock in zip(*side, strict=True))) for side in seconds)


def ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Ratio:
    """Return how many times faster ours is, round by round."""
    rounds = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Return the most bytes that one call holds beyond what was held before it, weights not counted.

    On CUDA that is what torch allocated; on Linux the growth of the resident set; elsewhere None, not measured.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or not _STATUS.is_file():
        return None
    _return_freed_pages()
    try:
        _RESET_PEAK.write_text("5")
    except OSError:
        return None
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of large matrix multiplications of random numbers, the best of some."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    (times,) = time_in_turn(lambda: left @ right, warmup=2, rounds=6, device=device)
    return 2.0 * side**3 / min(times.wall)


def _seconds(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    _wait_for(device)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    _wait_for(device)
    return time.perf_counter() - wall, time.process_time() - processor


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _return_freed_pages() -> None:
    # glibc keeps freed memory for itself, where it would hide from the peak of the next call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"{_STATUS} has no {field}")
