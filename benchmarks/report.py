"""What a comparison found, as JSON for machines and as a Markdown table for people.

Knows nothing of models or clocks.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.measure import Ratio, Times

PACKAGES = ("transformers", "numpy")
CPU_FLAGS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_tile", "bf16", "sve_bf16")


@dataclass(frozen=True)
class Side:
    """One side of one row."""

    times: Times
    """Of each round."""
    clips_per_second: float
    """From the median wall-clock time."""
    teraflops_per_second: float
    """Operations that the side must do over its median time."""
    peak_memory_bytes: int | None
    """Growth within one call; None: not measured here."""


@dataclass(frozen=True)
class Row:
    """One size and one task."""

    size: str
    """Letter of the network."""
    task: str
    """pretrain or classify."""
    batch: int
    """Clips per call."""
    compiled: bool
    """Whether both models went through torch.compile."""
    ours: Side
    """This package."""
    theirs: Side
    """Transformers."""
    wall_ratio: Ratio
    """How many times faster ours is, by the wall clock."""
    processor_ratio: Ratio | None
    """The same by processor time, which other processes disturb less; None on a GPU."""
    difference: float
    """Relative difference of the two losses, or logits, before the first step."""


def side(times: Times, *, batch: int, flops_per_clip: int, peak_memory_bytes: int | None) -> Side:
    """Return one side's figures."""
    clips_per_second = batch / statistics.median(times.wall)
    return Side(times, clips_per_second, clips_per_second * flops_per_clip / 1e12, peak_memory_bytes)


def machine(device: torch.device) -> dict[str, object]:
    """Return what the figures depend on: processor, memory, versions, and how busy the machine is already."""
    found: dict[str, object] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build, which the installed package's number may lack
        **{name: version(name) for name in PACKAGES},
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "huge_pages_asked_for": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = properties.name
        found["gpu_memory_bytes"] = properties.total_memory
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
    return found


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return those of the processor's vector and matrix abilities that matter to bfloat16 matrix multiplications."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.11
    found = {} if capabilities is None else capabilities()
    return [flag for flag in CPU_FLAGS if found.get(flag)]


def write(folder: Path, stem: str, rows: list[Row], facts: dict[str, object]) -> tuple[Path, Path]:
    """Write `<stem>.json` and `<stem>.md` into a folder, made if missing; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_markdown = folder / f"{stem}.json", folder / f"{stem}.md"
    values = {**facts, "rows": [asdict(row) for row in rows]}
    as_json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    as_markdown.write_text(markdown(rows, facts), encoding="utf-8")
    return as_json, as_markdown


def markdown(rows: list[Row], facts: dict[str, object]) -> str:
    """Return the facts and the table as Markdown."""
    lines = ["# Speed beside transformers", ""]
    lines += [f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in facts.items()]
    lines += ["", *table(rows), "", *LEGEND, ""]
    return "\n".join(lines)


LEGEND = (
    "Bfloat16 autocast, SDPA on transformers' side, clips of random pixels, tube mask 0.9, equal weights.",
    "Both sides run in turn in one process; clips/s from the median round; times faster: median of the rounds and",
    "[lowest, highest], by the wall clock and, on a CPU, by processor time, which other processes disturb less.",
    "TFLOP/s counts what each side must compute (`benchmarks/flops.py`); memory is the growth within one call.",
)


def table(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    head = (
        "size",
        "task",
        "batch",
        "clips/s ours",
        "theirs",
        "times faster",
        "by processor time",
        "TFLOP/s ours",
        "theirs",
        "GB ours",
        "theirs",
        "difference",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (
            row.size,
            row.task + (", compiled" if row.compiled else ""),
            str(row.batch),
            f"{row.ours.clips_per_second:.3g}",
            f"{row.theirs.clips_per_second:.3g}",
            _ratio(row.wall_ratio),
            _ratio(row.processor_ratio),
            f"{row.ours.teraflops_per_second:.3g}",
            f"{row.theirs.teraflops_per_second:.3g}",
            _gigabytes(row.ours.peak_memory_bytes),
            _gigabytes(row.theirs.peak_memory_bytes),
            f"{row.difference:.1e}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} [{ratio.lowest:.2f}, {ratio.highest:.2f}]"


def _gigabytes(size_bytes: int | None) -> str:
    return "not measured" if size_bytes is None else f"{size_bytes / 1e9:.2f}"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
