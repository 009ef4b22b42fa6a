"""One training run of `benchmarks/end_to_end.py` in a process of its own: prints what some of its steps took as JSON.

Clocks are read where a step begins, that is where it asks for its batch. Processes that read are this one's children;
their processor time is read from the system, on Linux alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from benchmarks.contenders import SIZES
from benchmarks.loader import children
from benchmarks.usual_pipeline import NUM_FRAMES, STRIDE, train
from videomae.cli import main as command
from videomae.data.scan import scan_unlabelled
from videomae.engine.data_wait import DataWait
from videomae.train import loop

RECIPE = Path(__file__).parent / "end_to_end.yaml"
PRESETS = {"S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant"}
SHAPE = (
    "patch_size hidden_size num_hidden_layers num_attention_heads intermediate_size decoder_hidden_size "
    "decoder_num_hidden_layers decoder_num_attention_heads decoder_intermediate_size"
).split()


class Marks(NamedTuple):
    """The clocks at one moment, seconds."""

    wall: float
    processor: float
    workers: float


@dataclass
class StepClock:
    """Reads the clocks at the beginning of two steps.

    Args:
        first: Steps before the time that counts.
        last: Steps at its end.
        device: Waited for when the clocks are read, and at no other step.
    """

    first: int
    last: int
    device: torch.device
    steps: int = 0
    marks: list[Marks] = field(default_factory=list)
    waited: float = 0.0
    """Seconds that the host waited for batches in between."""
    share: float | None = None
    """Of the time, in which a GPU had to wait; None: not known."""
    _asked: float = 0.0

    def asked(self) -> None:
        """Tell that a batch is asked for."""
        if self.steps in (self.first, self.last):
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.marks.append(Marks(time.perf_counter(), time.process_time(), worker_seconds()))
        self._asked = time.perf_counter()

    def got(self) -> None:
        """Tell that it is there."""
        if self.first <= self.steps < self.last:
            self.waited += time.perf_counter() - self._asked
        self.steps += 1

    def found(self, *, batch_size: int) -> dict[str, float | None]:
        """Return what the steps between took."""
        one, other = self.marks
        wall = other.wall - one.wall
        return {
            "clips": batch_size * (self.last - self.first),
            "wall": wall,
            "main": other.processor - one.processor,
            "workers": other.workers - one.workers,
            "waited": self.waited / wall if self.device.type != "cuda" else self.share,
        }


def worker_seconds() -> float:
    """Return the processor seconds of all living children so far."""
    total = 0
    for pid in children():
        with contextlib.suppress(OSError):
            fields = (
                Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            )
            total += int(fields[11]) + int(fields[12])  # in user and in system mode, in ticks
    return total / os.sysconf("SC_CLK_TCK")


def train_ours(arguments: Sequence[str], clock: StepClock) -> None:
    """Run our command, and read the clocks where it waits for data."""

    class Watched(DataWait):
        @contextlib.contextmanager
        def batch(self) -> Iterator[None]:
            clock.asked()
            with super().batch():
                yield
            clock.got()

        def done(self) -> None:
            super().done()
            if clock.steps <= clock.last:
                clock.share = self.share

    with patch.object(loop, "DataWait", Watched), contextlib.redirect_stdout(sys.stderr):
        status = command(list(arguments))
    if status:
        raise SystemExit(f"videomae {' '.join(arguments)} ended with {status}")


def our_arguments(
    size: str,
    videos: Path,
    out: Path,
    *,
    image_size: int,
    batch_size: int,
    steps: int,
    workers: int,
    device: str,
    precision: str,
) -> list[str]:
    """Return the arguments of our command; what is not named is as the command has it by default."""
    config = SIZES[size]
    model = (
        ["--model.preset", PRESETS[size]]
        if size in PRESETS
        else ["--model.overrides", json.dumps({name: getattr(config, name) for name in SHAPE})]
    )
    return [
        *(
            "pretrain",
            str(videos),
            "--out",
            str(out),
            "--config",
            str(RECIPE),
            *model,
            "--model.image_size",
            str(image_size),
        ),
        *("--clip.num_frames", str(NUM_FRAMES), "--clip.stride", str(STRIDE)),
        *("--loop.batch_size", str(batch_size), "--schedule.steps", str(steps), "--schedule.warmup_steps", "2"),
        *("--loop.workers", str(workers), "--loop.device", device, "--loop.precision", precision),
    ]


def main() -> None:
    """Run what the argument says, a JSON object."""
    asked = json.loads(sys.argv[1])
    if "threads" in asked:
        torch.set_num_threads(asked["threads"])
    device, videos, batch_size, steps = torch.device(asked["device"]), asked["videos"], asked["batch"], asked["steps"]
    clock = StepClock(asked["first"], asked["last"], device)
    if asked["ours"]:
        arguments = our_arguments(
            asked["size"],
            Path(videos),
            Path(asked["out"]),
            image_size=asked["image_size"],
            batch_size=batch_size,
            steps=steps,
            workers=asked["workers"],
            device=asked["device"],
            precision=asked["precision"],
        )
        train_ours(arguments, clock)
    else:
        config = SIZES[asked["size"]].replace(
            image_size=asked["image_size"], num_frames=NUM_FRAMES, use_mean_pooling=False
        )
        train(
            [Path(row.source) for row in scan_unlabelled(Path(videos)).rows],
            config,
            batch_size=batch_size,
            steps=steps,
            workers=asked["workers"],
            device=device,
            dtype=torch.bfloat16 if asked["bf16"] else torch.float32,
            asked=clock.asked,
            got=clock.got,
        )
    print(json.dumps(clock.found(batch_size=batch_size)))


if __name__ == "__main__":
    main()
