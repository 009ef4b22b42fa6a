"""What the loader makes of the reading rate, and what a large collection costs.

    python -m benchmarks.loader
    python -m benchmarks.loader --videos 1000 --large 100000 --huge 1000000 --out loader.json

Videos are generated: H.264, 340x256, 30 frames a second, 10 s, as Kinetics is. The large collections are manifests of
hard links to a few of them, so that every row is a file of its own and the disk stays small. Reading in one process
and in workers is timed in turn. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import machine
from videomae.data.configs import AugmentConfig
from videomae.data.datasets import PretrainingDataset
from videomae.data.loader import in_steps, train_loader
from videomae.data.scan import scan_unlabelled
from videomae.data.synthetic import motion_frames
from videomae.engine.seeding import numpy_generator
from videomae.engine.workers import running_workers
from videomae.masking import MaskConfig
from videomae.patches import TokenGrid
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

FILES = 20  # that links lead to: a file system allows tens of thousands of links to one
CLIP = ClipConfig(num_frames=16, stride=4)
SIZE = 224
GRID = TokenGrid(8, 14, 14)
BATCH_SIZE = 8
HEIGHT, WIDTH, RATE, SECONDS = 256, 340, 30, 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10, help="of each round")
    parser.add_argument("--videos", type=int, default=1_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--huge", type=int, default=1_000_000, help="rows that are opened and not read; 0: none")
    parser.add_argument("--work", type=Path, help="folder of the videos, kept; default: a temporary one")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        files = generated(work / "files", seconds=SECONDS)
        small = linked(work / "small", files, options.videos)
        large = linked(work / "large", files, options.large)
        found: dict[str, Any] = {
            **machine(torch.device("cpu")),
            "workers": scaling(small, options.workers, rounds=options.rounds, batches=options.batches),
            "rows": {
                str(count): in_a_process("rows", manifest, options.workers, options.batches)
                for count, manifest in ((options.videos, small), (options.large, large))
            },
        }
        if options.huge:
            huge = linked(work / "huge", files, options.huge)
            found["opening"] = {str(options.huge): in_a_process("open", huge)}
    print("\n".join(lines(found)))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


def lines(found: dict[str, Any]) -> list[str]:
    """Return the figures as a table."""
    workers = found["workers"]
    table = [
        "| what | measured |",
        "|---|---|",
        f"| one process, clips/s | {workers['one process']:.1f} |",
        f"| {workers['number']} workers, clips/s | {workers['workers']:.1f} |",
        (
            f"| of {workers['number']} times one process | {workers['share']:.0%} ({workers['lowest']:.0%} to "
            f"{workers['highest']:.0%}) |"
        ),
    ]
    for count, row in found["rows"].items():
        table.append(
            f"| {int(count):,} rows | opened in {row['open_seconds']:.2f} s, first batch after "
            f"{row['first_seconds']:.2f} s, {1000 / row['clips_per_second']:.1f} ms a clip, worker grows by "
            f"{row['worker_growth_mb']:.0f} MB |"
        )
    for count, row in found.get("opening", {}).items():
        table.append(f"| {int(count):,} rows | opened in {row['open_seconds']:.2f} s, {row['growth_mb']:.0f} MB |")
    return table


def generated(folder: Path, *, seconds: float) -> list[Path]:
    """Write the videos that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.mp4" for number in range(FILES)]
    for number, path in enumerate(paths):
        if not path.exists():
            rng = numpy_generator(0, number, "loader")
            square = motion_frames("left", size=WIDTH + 4, num_frames=round(RATE * seconds), rng=rng)
            frames = np.ascontiguousarray(square[:, :HEIGHT, :WIDTH])
            write_video(path, frames, frame_rate=RATE, quality=23, keyframe_interval=250)
    return paths


def linked(folder: Path, files: Sequence[Path], count: int) -> Path:
    """Make links and their manifest; returns the manifest."""
    manifest = folder / f"{count}.csv"
    if manifest.exists():
        return manifest
    names = [f"{number % 400:03}/{number:07}.mp4" for number in range(count)]
    for part in {name[:3] for name in names}:
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        os.link(files[number % len(files)], folder / name)
    manifest.write_text("path,group\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    return manifest


def scaling(manifest: Path, workers: int, *, rounds: int, batches: int) -> dict[str, float]:
    """Time reading in this process and in workers in turn; the workers have started and their queues are empty."""
    rates: dict[int, list[float]] = {0: [], workers: []}
    for number in range(rounds):
        for count in (0, workers) if number % 2 == 0 else (workers, 0):
            rates[count].append(read(manifest, count, batches, first=number * batches)["clips_per_second"])
    shares = [many / (workers * one) for one, many in zip(rates[0], rates[workers], strict=True)]
    return {
        "number": workers,
        "one process": statistics.median(rates[0]),
        "workers": statistics.median(rates[workers]),
        "share": statistics.median(shares),
        "lowest": min(shares),
        "highest": max(shares),
    }


def read(manifest: Path, workers: int, batches: int, *, first: int = 0) -> dict[str, float]:
    """Read batches of pre-training clips; the rate is that after the first batch of each worker."""
    began = time.perf_counter()
    videos = scan_unlabelled(manifest)
    opened = time.perf_counter()
    dataset = PretrainingDataset(
        videos, clip=CLIP, size=SIZE, augment=AugmentConfig(), mask=MaskConfig(), grid=GRID, seed=0
    )
    warm = max(workers, 1)
    loader = train_loader(
        dataset,
        batch_size=BATCH_SIZE,
        num_workers=workers,
        seed=0,
        start_step=first,
        total_steps=first + batches + warm,
    )
    with running_workers(loader) as groups:
        stream = in_steps(groups, start_step=first, repeats=1)
        next(stream)
        started = time.perf_counter()
        before = [private_bytes(pid) for pid in children()]
        for _ in range(warm - 1):
            next(stream)
        since = time.perf_counter()
        count = sum(len(batch.clips) for batch in stream)
        seconds = time.perf_counter() - since
        after = [private_bytes(pid) for pid in children()]
    grown = [late - early for early, late in zip(before, after, strict=False)]
    return {
        "open_seconds": opened - began,
        "first_seconds": started - began,
        "clips_per_second": count / seconds,
        "worker_growth_mb": max(grown, default=0) / 1e6,
    }


def opening(manifest: Path) -> dict[str, float]:
    """Open a manifest, its files looked for."""
    before, began = private_bytes(os.getpid()), time.perf_counter()
    videos = scan_unlabelled(manifest)
    seconds = time.perf_counter() - began
    assert videos.rows
    return {"open_seconds": seconds, "growth_mb": (private_bytes(os.getpid()) - before) / 1e6}


def in_a_process(*words: object) -> dict[str, float]:
    """Measure in a process of its own, whose memory holds nothing else."""
    command = [sys.executable, "-m", "benchmarks.loader_process", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def children() -> list[int]:
    """Return the processes that this one has started, Linux only."""
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def private_bytes(pid: int) -> int:
    """Return the memory that a process shares with no other, Linux only; 0 for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    kilobytes = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")]
    return 1024 * sum(kilobytes)


if __name__ == "__main__":
    main()
