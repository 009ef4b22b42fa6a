"""All that is to be known of one GPU, in a few minutes: each row is printed and kept as soon as it is measured.

    python -m benchmarks.cuda --budget 420 --out results.json

Rows are in the order of their importance, so that a run that is cut keeps what matters. `--device cpu --sizes tiny`
runs the same program in small.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cuda_checks import draw_curves, kernels, loss_curves, numerics, synchronizations
from benchmarks.cuda_steps import (
    Step,
    attention_times,
    classification_step,
    dense_step,
    graphed_step,
    peer_step,
    pretraining_step,
    product_rate,
)
from benchmarks.report import machine
from videomae.engine.precision import pick_device

LETTERS = ("B", "L", "S", "H", "g")


class Record:
    """The rows so far, on disk at any time."""

    def __init__(self, path: Path, facts: dict[str, Any], *, budget: float, started: float, only: list[str]) -> None:
        self.path, self.values, self.only = path, {**facts, "rows": []}, only
        self.budget, self.started = budget, started

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.budget - (time.perf_counter() - self.started)

    def measure(self, name: str, run: Callable[[], dict[str, Any]], *, needs: float = 0.0) -> dict[str, Any]:
        """Measure a row, print it and write all of them; an error becomes the row, and the next one goes on."""
        if self.only and not any(part in name for part in self.only):
            return {}
        if self.left() < needs:
            row: dict[str, Any] = {"name": name, "skipped": f"{self.left():.0f} s left"}
        else:
            before = time.perf_counter()
            try:
                row = {"name": name, **run()}
            except Exception as error:  # whatever it is: the rows after this one are still wanted
                row = {"name": name, "error": f"{type(error).__name__}: {error}"[:600]}
                traceback.print_exc(limit=-6, file=sys.stderr)
            row["took_s"] = round(time.perf_counter() - before, 1)
        row["at_s"] = round(time.perf_counter() - self.started, 1)
        self.values["rows"].append(row)
        print(json.dumps(row), flush=True)
        self.path.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
        return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the time allows."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", default=",".join(LETTERS), help="first: what most rows are about")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds, all told")
    parser.add_argument("--variants", default="blocks,whole", help="of blocks, whole, none; the first for all rows")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the batch sizes")
    parser.add_argument("--steps", type=int, default=5, help="steps in a timed round")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose name contains one of these")
    parser.add_argument("--out", type=Path, default=Path("cuda.json"))
    options = parser.parse_args(arguments)
    device = pick_device(options.device)
    record = Record(options.out, {**machine(device)}, budget=options.budget, started=started, only=options.only)
    print(json.dumps({key: value for key, value in record.values.items() if key != "rows"}), flush=True)
    plan(record, options, device)
    print(f"done after {time.perf_counter() - started:.0f} s", flush=True)


def plan(record: Record, options: argparse.Namespace, device: torch.device) -> None:
    """Measure the rows in order."""
    sizes, (variant, *others) = options.sizes.split(","), options.variants.split(",")
    first, steps_of_a_curve = sizes[0], 200 if device.type == "cuda" else 10
    large = "L" if "L" in sizes else first
    scale, steps = options.scale, options.steps
    peak = record.measure("product", lambda: product_rate(device)).get("tflops", 0.0)
    found = record.measure("attention", lambda: attention_times(device))
    prefer(found.get("best"), device)

    def pretraining(size: str, *, masked: bool = False, variant: str = variant, checks: bool = False) -> None:
        def run() -> dict[str, Any]:
            step = pretraining_step(size, device, scale=scale, masked=masked, variant=variant)
            if checks:  # before the steps, after which a model of random clips predicts means and has no gradients
                record.measure(f"{label}: numerics", lambda: numerics(step, device=device))
            row = timed(step, device, steps, peak)
            rows.append(step)
            return row

        rows: list[Step] = []
        label = f"pretrain {size}" + (" masked" if masked else "") + ("" if variant == "blocks" else f" {variant}")
        record.measure(label, run, needs=25)
        checked: tuple[tuple[str, Callable[[Step], dict[str, Any]], float], ...] = (
            ("kernels", functools.partial(kernels, device=device), 0),
            ("synchronizations", functools.partial(synchronizations, device=device), 0),
            ("in turn with transformers", beside_peer, 30),
        )
        for step in rows:  # on what is compiled already
            for what, check, needs in checked if checks else checked[:1]:
                record.measure(f"{label}: {what}", functools.partial(check, step), needs=needs)
        rows.clear()
        free(device)

    def beside_peer(step: Step) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for setting in ("blocks", "none"):
            theirs = peer_step(step.size, device, scale=scale, compiled=setting)
            ours_row, theirs_row = in_turn(step, theirs, device, peak)
            row[setting] = {"ours": ours_row, "theirs": theirs_row}
            row[setting]["times_faster"] = ours_row["clips_per_s"] / theirs_row["clips_per_s"]
            del theirs
            free(device)
        return row

    def whole_peer(size: str) -> dict[str, Any]:
        return timed(peer_step(size, device, scale=scale, compiled="whole"), device, steps, peak)

    def other(name: str, build: Callable[..., Step], size: str, *, needs: float = 25) -> None:
        record.measure(
            f"{name} {size}",
            lambda: timed(build(size, device, scale=scale, variant=variant), device, steps, peak),
            needs=needs,
        )
        free(device)

    pretraining(first, checks=True)
    pretraining(large)
    pretraining(first, masked=True)
    pretraining(large, masked=True)
    other("finetune", dense_step, first)
    other("finetune", dense_step, large)
    other("infer", classification_step, first)
    other("infer", classification_step, large)
    small = sizes[-1] if first == "tiny" else "S"
    curves = record.measure("loss curves", lambda: loss_curves(small, device, steps=steps_of_a_curve), needs=35)
    if "curves" in curves:
        draw_curves(curves, record.path.with_suffix(".png"))
    for size in sizes[1:]:
        if size != large:
            pretraining(size)
    record.measure(f"pretrain {first}: transformers compiled whole", lambda: whole_peer(first), needs=60)
    for graphed in (False, True):
        other(
            f"pretrain, {'a CUDA graph' if graphed else 'no graph'}, few clips,",
            lambda size, device, scale, variant, graphed=graphed: graphed_step(
                size, device, scale=scale / 12, graphed=graphed
            ),
            small,
        )
    if device.type == "cuda" and "L" in sizes:
        pretraining("L-12")
    for alternative in others:
        pretraining(first, variant=alternative)


def timed(step: Step, device: torch.device, steps: int, peak: float, *, rounds: int = 3) -> dict[str, Any]:
    """Warm a step up, time some rounds of several steps, and say how fast it was."""
    seconds = []
    before = time.perf_counter()
    for _ in range(3):
        step.run()
    wait(device)
    warmup = time.perf_counter() - before
    reset_peak(device)
    for _ in range(rounds):
        seconds.append(clock(step, device, steps))
    return {"warmup_s": round(warmup, 1), **summary(step, seconds, device, peak)}


def in_turn(ours: Step, theirs: Step, device: torch.device, peak: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time two steps in turn."""
    for step in (ours, theirs):
        for _ in range(3):
            step.run()
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(5):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append(clock((ours, theirs)[side], device, 2))
    return summary(ours, found[0], device, peak), summary(theirs, found[1], device, peak)


def clock(step: Step, device: torch.device, steps: int) -> float:
    """Return the seconds of one step, the mean of several in a row."""
    wait(device)
    before = time.perf_counter()
    for _ in range(steps):
        step.run()
    wait(device)
    return (time.perf_counter() - before) / steps


def summary(step: Step, seconds: list[float], device: torch.device, peak: float) -> dict[str, Any]:
    """Return what the times say, with the median of the rounds."""
    median = sorted(seconds)[len(seconds) // 2]
    rate = step.batch / median
    row = {
        "batch": step.batch,
        "clips_per_s": round(rate, 2),
        "range": [round(step.batch / max(seconds), 2), round(step.batch / min(seconds), 2)],
        "step_ms": round(1e3 * median, 3),
        "gflop_per_clip": round(step.flops / 1e9, 2),
        "tflops": round(rate * step.flops / 1e12, 2),
    }
    if peak:
        row["share_of_products"] = round(rate * step.flops / 1e12 / peak, 4)
    if device.type == "cuda":
        row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return row


def prefer(name: str | None, device: torch.device) -> None:
    """Let attention run by one kind of kernel, or by torch's choice; programs compiled from now on keep to it."""
    if device.type == "cuda" and name in ("flash", "cudnn"):
        torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
        if name == "cudnn":
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_mem_efficient_sdp(False)


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: torch.device) -> None:
    """Count the peak of memory from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def free(device: torch.device) -> None:
    """Give memory back that nothing holds."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    reset_peak(device)


if __name__ == "__main__":
    main()
