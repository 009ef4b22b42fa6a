"""Time the first answer: from the start of a process to the classes of one video, beside transformers' pipeline.

    python -m benchmarks.first_answer --size B

Both read the same folder: random weights, a video of ten seconds that is made here. Times are those of whole
processes, in turn; the processor's time is that of the process and all its threads. Python keeps compiled files,
unless PYTHONDONTWRITEBYTECODE is set, which makes every start slower.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.contenders import SIZES
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.train.pretrain import training_processor
from videomae.video.write import write_video

THEIRS = """
import sys
from transformers import pipeline
found = pipeline("video-classification", model=sys.argv[1], {options})
print(found(sys.argv[2], top_k=5))
"""
LOAD = """
import sys, time
from videomae import VideoMAEForVideoClassification
before = time.perf_counter()
model = VideoMAEForVideoClassification.from_pretrained(sys.argv[1])
print(time.perf_counter() - before)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_answer", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="B")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count; one more warms the disk up")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, clip = folder / "model", folder / "clip.mp4"
        make(model, clip, options.size)
        contenders = {
            "videomae predict": ours(model, clip),
            "videomae predict --precision fp32": ours(model, clip, "--precision", "fp32"),
            "videomae predict --precision int8": ours(model, clip, "--precision", "int8"),
            "transformers' pipeline": theirs(model, clip, ""),
            "transformers' pipeline, bfloat16": theirs(model, clip, "dtype='bfloat16'"),
        }
        seconds = in_turn(contenders, options.rounds)
        loads = [float(output_of([sys.executable, "-c", LOAD, str(model)])) for _ in range(options.rounds)]
        helps = in_turn({"help": [sys.executable, "-m", "videomae", "predict", "--help"]}, options.rounds)["help"]
    medians = {
        name: [statistics.median(clock) for clock in zip(*found, strict=True)] for name, found in seconds.items()
    }
    best = [
        min(clocks) for clocks in zip(*(medians[name] for name in medians if "transformers" in name), strict=True)
    ]
    print("| contender | seconds | processor seconds | faster than transformers' best | by processor time |")
    print("|" + " --- |" * 5)
    for name, (wall, processor) in medians.items():
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {best[0] / wall:.2f} | {best[1] / processor:.2f} |")
    print(f"loading the model: {statistics.median(loads):.2f} s")
    print(f"videomae predict --help: {statistics.median(wall for wall, _ in helps):.2f} s")


def make(model: Path, clip: Path, size: str) -> None:
    """Write a classifier of random weights with its processor, and a video of ten seconds."""
    config = SIZES[size].replace(num_labels=400)
    VideoMAEForVideoClassification(config).save_pretrained(model)
    training_processor(config.image_height_width[0]).save_pretrained(model)
    rng = np.random.default_rng(0)
    background = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    write_video(clip, (np.roll(background, 2 * number, axis=1)[:240, :320] for number in range(250)), frame_rate=25.0)


def ours(model: Path, clip: Path, *options: str) -> list[str]:
    """Return our command."""
    return [sys.executable, "-m", "videomae", "predict", str(model), str(clip), *options]


def theirs(model: Path, clip: Path, options: str) -> list[str]:
    """Return what a user of transformers runs."""
    return [sys.executable, "-c", THEIRS.format(options=options), str(model), str(clip)]


def in_turn(contenders: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run all in turn, and return the seconds by the wall clock and by the processor's of each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, command in contenders.items():
            before, used = time.perf_counter(), os.times()
            output_of(command)
            now = os.times()
            spent = now.children_user + now.children_system - used.children_user - used.children_system
            if number:
                found[name].append((time.perf_counter() - before, spent))
    return found


def output_of(command: list[str]) -> str:
    """Return what a process prints.

    Raises:
        RuntimeError: If it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr[-800:]}")
    return done.stdout


if __name__ == "__main__":
    main()
