"""What a comparison found, as JSON for machines and as a Markdown table for people."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.contenders import Task
from benchmarks.measure import Ratio, Times, ratio
from videomae.engine.environment import processor_name

PACKAGES = ("transformers", "numpy")
CPU_FLAGS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_tile", "bf16", "sve_bf16")


@dataclass(frozen=True)
class Row:
    """One contender at one task."""

    task: str
    """What is done."""
    size: str
    """Name of the model."""
    batch: int
    """Clips per call."""
    contender: str
    """Whose, and what of it is compiled."""
    is_ours: bool
    """Whether it is this package's."""
    times: Times
    """Of each round."""
    clips_per_second: float
    """From the median time."""
    teraflops_per_second: float
    """Operations that it must do over its median time."""
    share_of_products: float
    """The same over what matrix multiplications reach here."""
    peak_memory_bytes: int | None
    """Growth within one call; None: not measured here."""
    first_call_seconds: float
    """Of the first call, in which compilation happens."""
    faster: Ratio | None
    """How many times as fast as the best of the other side, by the clock that counts here; None for theirs."""
    faster_by_the_wall: Ratio | None
    """The same by the wall clock."""
    difference: float
    """Relative difference of the two sides' losses, or logits, before the first step."""


def rows_of(
    task: Task,
    size: str,
    times: Sequence[Times],
    memory: Sequence[int | None],
    first_calls: Sequence[float],
    *,
    products: float,
    device: torch.device,
) -> list[Row]:
    """Return a row for each contender of a task.

    On a CPU the processor's time counts, divided by the threads: other processes disturb it less than the wall
    clock's. Ours are compared with the fastest setting of the other side.
    """
    counting = [one.wall if device.type != "cpu" else one.processor for one in times]
    theirs = [place for place, one in enumerate(task.contenders) if not one.is_ours]
    best = min(theirs, key=lambda place: statistics.median(counting[place])) if theirs else None
    found = []
    for place, one in enumerate(task.contenders):
        rate = task.batch / statistics.median(times[place].wall)
        operations = rate * one.flops_per_clip
        compared = one.is_ours and best is not None
        found.append(
            Row(
                task=task.name,
                size=size,
                batch=task.batch,
                contender=one.name,
                is_ours=one.is_ours,
                times=times[place],
                clips_per_second=rate,
                teraflops_per_second=operations / 1e12,
                share_of_products=operations / products,
                peak_memory_bytes=memory[place],
                first_call_seconds=first_calls[place],
                faster=ratio(counting[place], counting[best]) if compared and best is not None else None,
                faster_by_the_wall=(
                    ratio(times[place].wall, times[best].wall) if compared and best is not None else None
                ),
                difference=task.difference,
            )
        )
    return found


def machine(device: torch.device) -> dict[str, object]:
    """Return what the figures depend on: processor, memory, versions, and how busy the machine is already."""
    found: dict[str, object] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build, which the installed package's number may lack
        **{name: installed_version(name) for name in PACKAGES},
        "cpu": processor_name(),
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


def installed_version(name: str) -> str:
    """Return the version of a package, or that it is not installed: not every suite needs a peer."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def cpu_flags() -> list[str]:
    """Return those of the processor's vector and matrix abilities that matter to bfloat16 matrix multiplications."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.11
    found = {} if capabilities is None else capabilities()
    return [flag for flag in CPU_FLAGS if found.get(flag)]


def write(
    folder: Path, stem: str, rows: list[Row], facts: dict[str, object], shares: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Write `<stem>.json` and `<stem>.md` into a folder, made if missing; returns both paths.

    Args:
        folder: For both.
        stem: Of their names.
        rows: Of the table.
        facts: What the figures depend on.
        shares: Lines on where the time goes, for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_markdown = folder / f"{stem}.json", folder / f"{stem}.md"
    values = {**facts, "rows": [asdict(row) for row in rows]}
    as_json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    as_markdown.write_text("\n".join([markdown(rows, facts), *shares]), encoding="utf-8")
    return as_json, as_markdown


def markdown(rows: list[Row], facts: dict[str, object]) -> str:
    """Return the facts and the table as Markdown."""
    lines = ["# Speed beside transformers", ""]
    lines += [f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in facts.items()]
    lines += ["", *table(rows), "", *LEGEND, ""]
    return "\n".join(lines)


LEGEND = (
    "Clips of random pixels, tube mask 0.9, equal weights, fused AdamW, SDPA on transformers' side. All contenders",
    "of a task run in turn in one process; clips/s from the median round. *Faster*: than the fastest setting of",
    "transformers, median of the rounds [lowest, highest], on a CPU by processor time, which other processes disturb",
    "less; then by the wall clock. TFLOP/s counts what each must compute (`benchmarks/flops.py`); its share is of",
    "what large matrix multiplications reach in the same run. GB is the growth within one call.",
)


def table(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    head = "task size batch contender clips/s TFLOP/s share GB first_call faster wall difference".split()
    lines = ["| " + " | ".join(head).replace("_", " ") + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (
            row.task,
            row.size,
            str(row.batch),
            row.contender,
            f"{row.clips_per_second:.3g}",
            f"{row.teraflops_per_second:.3g}",
            f"{100 * row.share_of_products:.0f} %",
            _gigabytes(row.peak_memory_bytes),
            f"{row.first_call_seconds:.0f} s",
            _ratio(row.faster),
            _ratio(row.faster_by_the_wall),
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
