"""Time this package beside transformers, on the processor at hand: one command, one table.

    python -m benchmarks.run --suite all --compile none
    python -m benchmarks.run --suite pretrain --device cpu --sizes S,B
    python -m benchmarks.run --suite memory --device cpu --sizes S,B --compile none
    python -m benchmarks.run --suite inference --precision fp32
    python -m benchmarks.run --suite end_to_end --sizes S --image_size 112

All contenders get the same pixels, masks and weights, and their losses must agree before the clock starts. On a GPU
`python -m benchmarks.cuda` measures every suite but the last in one process. `--profile` tells where the time goes.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import multiprocessing
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.contenders import (
    SIZES,
    Setting,
    Task,
    classification_task,
    finetuning_task,
    pretraining_task,
)
from benchmarks.measure import peak_memory, product_rate, time_in_turn
from benchmarks.report import Row, machine, rows_of, table, write
from benchmarks.shares import share_lines
from videomae.engine.precision import compute_dtype, pick_device
from videomae.masking import MaskConfig

RESULTS = Path(__file__).parent / "results"
COMPILED = ("none", "blocks", "whole")
# Clips per call. On a CPU more of them change little, but for models that are next to nothing.
BATCH = {"pretrain": 4, "finetune": 2, "inference": 1, "memory": 4, "end_to_end": 8}
BATCH_OF_LAPTOP = 16
BATCH_ON_A_GPU = {"pretrain": 64, "finetune": 32, "inference": 32, "memory": 64, "end_to_end": 64}
V2 = MaskConfig(decoder_kind="running_cell", decoder_ratio=0.5)  # VideoMAE V2's decoder masking
DEFAULT_SIZES = {
    "pretrain": ("laptop", "S", "B"),
    "finetune": ("S", "B"),
    "inference": ("S", "B"),
    "memory": ("S", "B"),
    "end_to_end": ("S",),
}
WARMUP_ROUNDS = 1  # after the first call, in which things are compiled


def tasks(suite: str, size: str, setting: Setting, batch: int) -> list[Callable[[], Task]]:
    """Return what builds the tasks of a suite, one after the other."""
    match suite:
        case "pretrain":
            same = [lambda: pretraining_task(size, setting, batch=batch)]
            if size == "laptop":
                return same
            return [*same, lambda: pretraining_task(size, setting, batch=batch, mask=V2)]
        case "memory":
            return [lambda: pretraining_task(size, setting, batch=batch)]
        case "finetune":
            return [lambda: finetuning_task(size, setting, batch=batch)]
    return [lambda: classification_task(size, setting, batch=batch)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table of each suite and write its two files."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    for suite in options.suite:
        sizes = options.sizes or list(DEFAULT_SIZES[suite])
        measure_suite(argparse.Namespace(**{**vars(options), "suite": suite, "sizes": sizes}))


def measure_suite(options: argparse.Namespace) -> None:
    """Measure one suite."""
    device = pick_device(options.device)
    dtype = compute_dtype(options.precision, device)
    name = "bf16" if dtype == torch.bfloat16 else "fp32"
    batch = options.batch or (BATCH_ON_A_GPU if device.type == "cuda" else BATCH)[options.suite]
    batches = dict.fromkeys(options.sizes, batch)
    if "laptop" in batches and options.batch is None and device.type == "cpu":
        batches["laptop"] = BATCH_OF_LAPTOP
    stem = f"{datetime.date.today()}-{device.type}-{options.tag or name}-{options.suite}-{'-'.join(options.sizes)}"
    if options.suite == "end_to_end":
        from_files(options, stem, device=device, dtype=dtype, batch=batch)
        return
    products = product_rate(device, dtype)
    facts: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "command": command(options, device.type, name),
        "rounds": options.rounds,
        "matrix_products_tflops": round(products / 1e12, 3),
        **machine(device),
    }
    rows: list[Row] = []
    setting, shares = Setting(device, dtype, tuple(options.compile)), list[str]()
    for size in options.sizes:
        for build in tasks(options.suite, size, setting, batches[size]):
            task = build()
            rows += measure(task, size, options.rounds, products=products, device=device)
            if options.suite == "memory" and device.type == "cpu":
                rows[-len(task.contenders) :] = alone(rows[-len(task.contenders) :], size, setting, batches[size])
            if options.profile:
                shares += [*share_lines(task, size), ""]
            del task
            gc.collect()
            written = write(options.out, stem, rows, facts, shares)  # after each: a run may be cut
    print("\n".join([*table(rows), "", *shares]))
    for path in written:
        print(path)


def measure(task: Task, size: str, rounds: int, *, products: float, device: torch.device) -> list[Row]:
    """Measure one size at one task."""
    firsts, memory = [], []
    for one in task.contenders:
        print(f"{size} {task.name}: {one.name} ...", file=sys.stderr, flush=True)
        before = time.perf_counter()
        one.run()
        firsts.append(time.perf_counter() - before)
    times = time_in_turn(*(one.run for one in task.contenders), warmup=WARMUP_ROUNDS, rounds=rounds, device=device)
    memory = [peak_memory(one.run, device) for one in task.contenders]
    return rows_of(task, size, times, memory, firsts, products=products, device=device)


def alone(rows: list[Row], size: str, setting: Setting, batch: int) -> list[Row]:
    """Return rows with the memory of each contender measured in a process of its own, of no history."""
    start = multiprocessing.get_context("spawn")
    found = []
    for place, row in enumerate(rows):
        with ProcessPoolExecutor(1, mp_context=start) as process:
            memory = process.submit(memory_of, place, size, setting, batch, torch.get_num_threads()).result()
        found.append(replace(row, peak_memory_bytes=memory))
    return found


def memory_of(place: int, size: str, setting: Setting, batch: int, threads: int) -> int | None:
    """Return the memory of one contender's step, the third."""
    torch.set_num_threads(threads)
    (build,) = tasks("memory", size, setting, batch)
    run = build().contenders[place].run
    for _ in range(2):
        run()
    return peak_memory(run, setting.device)


def from_files(
    options: argparse.Namespace, stem: str, *, device: torch.device, dtype: torch.dtype, batch: int
) -> None:
    """Measure the suite that starts from video files."""
    from benchmarks import end_to_end

    given = {"suite": "end_to_end", "device": device.type, "sizes": ",".join(options.sizes), "batch": batch}
    names = ("image_size", "num_videos", "seconds", "steps", "workers", "rounds", "core_hour", "gpu_hour")
    given |= {name: getattr(options, name) for name in ("precision", *names)}
    words = [
        word
        for name, value in given.items()
        for word in (f"--{name}", f"{value:g}" if name.endswith("hour") else str(value))
    ]
    words += ["--at_once"] if options.at_once else []
    facts = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.run", *words, "--threads", str(torch.get_num_threads())]),
        "videos": "given" if options.videos else "generated",
        **machine(device),
    }
    options.batch, before = batch, list[end_to_end.EndToEndRow]()
    for size in options.sizes:
        rows = []
        for rows in end_to_end.measure(options, size, device=device, bf16=dtype == torch.bfloat16):
            written = end_to_end.write(options.out, stem, [*before, *rows], facts)
        before += rows
    print("\n".join(end_to_end.table(before)))
    for path in written:
        print(path)


def command(options: argparse.Namespace, device: str, precision: str) -> str:
    """Return the command that repeats this run, with its defaults spelt out and without the author's folder."""
    given = ["--suite", options.suite, "--device", device, "--sizes", ",".join(options.sizes)]
    given += [] if options.batch is None else ["--batch", str(options.batch)]
    given += ["--precision", precision, "--compile", ",".join(options.compile), "--rounds", str(options.rounds)]
    given += ["--threads", str(torch.get_num_threads())]
    return shlex.join(["python", "-m", "benchmarks.run", *given, *(["--tag", options.tag] if options.tag else [])])


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    found.add_argument("--suite", type=_suites, default=["pretrain"], help=f"of {','.join(BATCH)}, or all")
    found.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    found.add_argument("--sizes", type=_sizes, help=f"of {','.join(SIZES)}; default by suite, S,B for most")
    found.add_argument("--profile", action="store_true", help="tell where the time goes, by kinds of operators")
    found.add_argument("--peer", choices=("transformers",), default="transformers", help="who else takes part")
    found.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of all contenders")
    found.add_argument(
        "--compile", type=_compiled, default=["none", "blocks"], help=f"of {','.join(COMPILED)}; default none,blocks"
    )
    found.add_argument("--batch", type=_positive, help="clips per call; default by suite and device")
    found.add_argument("--rounds", type=_positive, default=5, help="rounds that count; default 5")
    found.add_argument("--threads", type=_positive, help="CPU threads; default torch's")
    found.add_argument("--tag", default="", help="of the processor, in the names of the files; default the precision")
    found.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the Markdown file")
    files = found.add_argument_group("the suite end_to_end, which trains from video files")
    files.add_argument("--videos", type=Path, help="folder or manifest; default: generated ones")
    files.add_argument("--num_videos", type=_positive, default=16, help="generated videos; default 16")
    files.add_argument("--seconds", type=_positive, default=10, help="length of each; default 10")
    files.add_argument("--image_size", type=_positive, default=112, help="height and width of clips; default 112")
    files.add_argument("--steps", type=_positive, default=10, help="steps of a run that count; default 10")
    files.add_argument(
        "--workers", type=_positive, default=1, help="processes that read; default 1, as the command has"
    )
    files.add_argument("--at_once", action="store_true", help="all runs of a round together, on a busy machine")
    files.add_argument("--core_hour", type=float, default=0.04, help="price of an hour of a CPU core; default 0.04")
    files.add_argument("--gpu_hour", type=float, default=2.5, help="price of an hour of a GPU; default 2.5")
    return found


def _sizes(text: str) -> list[str]:
    return _chosen(text, "size", list(SIZES))


def _suites(text: str) -> list[str]:
    return list(BATCH) if text == "all" else _chosen(text, "suite", list(BATCH))


def _compiled(text: str) -> list[str]:
    return _chosen(text, "part to compile", list(COMPILED))


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
