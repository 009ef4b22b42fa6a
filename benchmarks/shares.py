"""Where the time of a call goes: the shares of kinds of operators, by torch's profiler.

Operators are told apart by their names, so compiled contenders have no table: their operators are fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import Task

# The first kind counts that has an operator's name, or its first words.
KINDS: dict[str, tuple[str, ...]] = {
    "products with weights": (
        "addmm",
        "mm",
        "linear",
        "mkldnn_linear",
        "convolution",
        "mkldnn_convolution",
        "_int_mm",
    ),
    "attention: its products, or torch's fused kernel": ("bmm", "_scaled_dot_product"),
    "attention: softmax and its gradient": ("_softmax",),
    "casts and copies": ("copy_", "cat", "clone", "contiguous", "fill_"),
    "AdamW": ("_fused_adamw",),
    "GELU and its gradient": ("gelu",),
    "LayerNorm and its gradient": ("native_layer_norm",),
    "sums, of biases' gradients": ("sum",),
    "additions and scalings": ("add", "mul", "_foreach"),
}
REST = "everything else: gathering, loss and targets, Python"


def kind_of(operator: str) -> str:
    """Return the kind of an operator of the profiler, such as `aten::addmm`."""
    name = operator.rpartition("::")[2]
    for kind, names in KINDS.items():
        if any(name == one or name.startswith(f"{one}_") for one in names):
            return kind
    return REST


def shares_of(run: Callable[[], object], *, repeats: int = 2) -> dict[str, float]:
    """Return the seconds of a call by the kind of operator, on a CPU; the whole is their sum.

    Args:
        run: Was called before.
        repeats: Calls, of which the mean is taken.
    """
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(repeats):
            with torch.profiler.record_function("call"):
                run()
    seconds = dict.fromkeys((*KINDS, REST), 0.0)
    for one in found.key_averages():
        # What belongs to no operator is the call's own time, Python's among others.
        seconds[REST if one.key == "call" else kind_of(one.key)] += one.self_cpu_time_total / 1e6 / repeats
    return seconds


def share_lines(task: Task, size: str) -> list[str]:
    """Profile the contenders of a task that are not compiled, and return a table of their shares."""
    plain = [one for one in task.contenders if "compiled" not in one.name]
    found = [shares_of(one.run) for one in plain]
    return [f"{size} {task.name}, batch {task.batch}:", "", *table([one.name for one in plain], found)]


def table(names: Sequence[str], found: Sequence[dict[str, float]]) -> list[str]:
    """Return the lines of a table: milliseconds and shares of each contender."""
    lines = [
        "| part | " + " | ".join(f"{name}, ms | share" for name in names) + " |",
        "|" + " --- |" * (1 + 2 * len(names)),
    ]
    totals = [sum(one.values()) for one in found]
    for kind in (*KINDS, REST):
        cells = [
            f"{1e3 * one[kind]:.0f} | {100 * one[kind] / total:.1f} %"
            for one, total in zip(found, totals, strict=True)
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines.append("| together | " + " | ".join(f"{1e3 * total:.0f} | 100 %" for total in totals) + " |")
    return lines
