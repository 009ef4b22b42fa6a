"""Time a pre-training step and a classification forward pass beside transformers.

Both sides get the same pixels, masks and weights, and their losses must agree before the clock starts.

    python -m benchmarks.step --device cpu --sizes S,B
    python -m benchmarks.step --device cuda --sizes S,B,L --batch 64 --compile
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.contenders import SIZES, Task, classification_task, pretraining_task
from benchmarks.measure import peak_memory, ratio, time_in_turn
from benchmarks.report import Row, machine, side, table, write
from videomae.engine.precision import pick_device

RESULTS = Path(__file__).parent / "results"
BATCH = {"cpu": 4, "cuda": 64, "mps": 4}
TASKS = {"pretrain": pretraining_task, "classify": classification_task}
WARMUP_ROUNDS = 2


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    device: torch.device
    """Where both sides run."""
    batch: int
    """Clips per call."""
    rounds: int
    """Rounds that count."""
    compiled: bool
    """Whether both models go through torch.compile."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write both files."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    plan = Plan(device, options.batch or BATCH[device.type], options.rounds, options.compile)
    facts: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "command": command(options, plan),
        "rounds": plan.rounds,
        **machine(device),
    }
    rows = []
    for size in options.sizes:
        for name in options.tasks:
            print(f"{size} {name} ...", file=sys.stderr, flush=True)
            rows.append(measure(size, name, plan))
    print("\n".join(table(rows)))
    stem = f"{facts['date']}-{device.type}-{'-'.join(options.sizes)}" + ("-compiled" if plan.compiled else "")
    for path in write(options.out, stem, rows, facts):
        print(path)


def command(options: argparse.Namespace, plan: Plan) -> str:
    """Return the command that repeats this run, with its defaults spelt out and without the author's folder."""
    arguments = ["--device", plan.device.type, "--sizes", ",".join(options.sizes), "--tasks", ",".join(options.tasks)]
    arguments += ["--batch", str(plan.batch), "--rounds", str(plan.rounds), "--threads", str(torch.get_num_threads())]
    return shlex.join(["python", "-m", "benchmarks.step", *arguments, *(["--compile"] if plan.compiled else [])])


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__.partition("\n")[0])
    found.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    found.add_argument("--sizes", type=_sizes, default=["S", "B"], help=f"of {','.join(SIZES)}; default S,B")
    found.add_argument("--tasks", type=_tasks, default=list(TASKS), help=f"of {','.join(TASKS)}; default both")
    found.add_argument("--batch", type=_positive, help="clips per call; default 4 on a CPU, 64 on a GPU")
    found.add_argument("--rounds", type=_positive, default=10, help="rounds that count; default 10")
    found.add_argument("--compile", action="store_true", help="compile both models with torch.compile")
    found.add_argument("--threads", type=_positive, help="CPU threads; default torch's")
    found.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the Markdown file")
    return found


def measure(size: str, name: str, plan: Plan) -> Row:
    """Measure one size at one task."""
    task: Task = TASKS[name](size, batch=plan.batch, device=plan.device, compiled=plan.compiled)
    ours, theirs = time_in_turn(
        task.ours.run, task.theirs.run, warmup=WARMUP_ROUNDS, rounds=plan.rounds, device=plan.device
    )
    sides = [
        side(
            times,
            batch=plan.batch,
            flops_per_clip=contender.flops_per_clip,
            peak_memory_bytes=peak_memory(contender.run, plan.device),
        )
        for times, contender in ((ours, task.ours), (theirs, task.theirs))
    ]
    return Row(
        size=size,
        task=task.name,
        batch=plan.batch,
        compiled=plan.compiled,
        ours=sides[0],
        theirs=sides[1],
        wall_ratio=ratio(ours.wall, theirs.wall),
        processor_ratio=ratio(ours.processor, theirs.processor) if plan.device.type == "cpu" else None,
        difference=task.difference,
    )


def _sizes(text: str) -> list[str]:
    return _chosen(text, "size", list(SIZES))


def _tasks(text: str) -> list[str]:
    return _chosen(text, "task", list(TASKS))


def _chosen(text: str, what: str, known: list[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown {what} {name!r}: choose of {','.join(known)}")
    return names


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return value


if __name__ == "__main__":
    main()
