"""From video files to updated weights: `videomae pretrain` beside the usual pipeline, each in a process of its own.

Called by `python -m benchmarks.run --suite end_to_end`. The runs take turns, in an order that is reversed every other
round, or with `--at_once` share the machine, where processor time alone says something. Every run has the same model,
objective, batch, number of clips, threads and workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.film import FRAME_RATE, write_clip
from benchmarks.measure import Ratio, ratio
from benchmarks.usual_pipeline import opener
from videomae.collection.configs import PrepareConfig
from videomae.collection.prepare import prepare_collection
from videomae.collection.prepared_manifest import MANIFEST_FILE
from videomae.engine.jobs import num_processors

ROOT = Path(__file__).parents[1]
WARMUP_STEPS = 4  # workers start, indices are kept, the monitor looks at the model before and after the first step
STEPS_BEHIND = 3  # at the end workers have nothing left to do: such steps do not count


@dataclass(frozen=True)
class Way:
    """One way of training."""

    name: str
    """Whose, and in which precision."""
    is_ours: bool
    """Whether it is this package's command."""
    bf16: bool
    """Whether matrix multiplications are in bfloat16; the command decides by itself where nothing else is asked."""
    prepared: bool
    """Whether the videos are those that `videomae data prepare` has written."""


@dataclass(frozen=True)
class EndToEndRow:
    """What one way took."""

    contender: str
    """Whose, and in which precision."""
    videos: str
    """original or prepared."""
    wall: tuple[float, ...]
    """Seconds for a clip in each round."""
    step: tuple[float, ...]
    """Of it, processor seconds of the process that computes steps."""
    reading: tuple[float, ...]
    """And those of the processes that read."""
    data_wait: float | None
    """Share of the time in which a step waits for its batch, median; None: the run was too short to tell."""
    clips_per_second: float
    """By the wall clock, median."""
    processor_seconds: float
    """For 1,000 clips, median."""
    price: float
    """For 1,000 clips, by the stated prices."""
    faster: Ratio | None
    """How many times as fast as the usual pipeline in float32, by processor time (on a GPU: by the wall clock)."""
    faster_than_bf16: Ratio | None
    """As fast as the usual pipeline in bfloat16; None where it did not take part."""
    step_faster: Ratio | None
    """The same as `faster`, of steps alone."""
    reading_faster: Ratio | None
    """And of reading alone."""


def ways(*, bf16: bool) -> list[Way]:
    """Return all contenders; bfloat16 where the command uses it."""
    found = [Way("usual pipeline, float32", is_ours=False, bf16=False, prepared=False)]
    if bf16:
        found.append(Way("usual pipeline, bfloat16", is_ours=False, bf16=True, prepared=False))
        found.append(Way("usual pipeline, bfloat16", is_ours=False, bf16=True, prepared=True))
    found.append(Way("videomae pretrain", is_ours=True, bf16=bf16, prepared=False))
    found.append(Way("videomae pretrain", is_ours=True, bf16=bf16, prepared=True))
    return found


def measure(
    options: argparse.Namespace, size: str, *, device: torch.device, bf16: bool
) -> Iterator[list[EndToEndRow]]:
    """Make the videos, run all contenders in turn, and give a row for each after every round."""
    with tempfile.TemporaryDirectory(prefix="videomae-") as temporary:
        folder = Path(temporary)
        originals = options.videos or written(folder / "original", options.num_videos, options.seconds)
        prepared = folder / "prepared"
        result = prepare_collection(originals, prepared, config=PrepareConfig(), workers=num_processors())
        if result.failed:
            raise SystemExit(f"{len(result.failed)} videos cannot be read, first {result.failed[0]}: leave them out")
        contenders = ways(bf16=bf16)
        found: list[list[dict[str, float]]] = [[] for _ in contenders]
        for number in range(options.rounds):
            order = list(range(len(contenders)))
            print(f"round {number + 1} of {options.rounds} ...", file=sys.stderr, flush=True)

            def run_at(place: int, number: int = number) -> tuple[int, dict[str, float]]:
                one = contenders[place]
                videos = prepared / MANIFEST_FILE if one.prepared else originals
                return place, run(one, videos, folder / f"run-{number}-{place}", options, size, device)

            with ThreadPoolExecutor(len(contenders) if options.at_once else 1) as threads:
                for place, figures in threads.map(run_at, order if number % 2 == 0 else order[::-1]):
                    found[place].append(figures)
            yield rows_of(contenders, found, options, device=device)


def run(
    way: Way, videos: Path, out: Path, options: argparse.Namespace, size: str, device: torch.device
) -> dict[str, float]:
    """Train in a process of its own, and return what `benchmarks/step_clock.py` found.

    Raises:
        RuntimeError: If it fails.
    """
    last = WARMUP_STEPS + options.steps
    asked = {
        "ours": way.is_ours,
        "bf16": way.bf16,
        "precision": options.precision,
        "size": size,
        "image_size": options.image_size,
        "videos": str(videos),
        "out": str(out),
        "batch": options.batch,
        "first": WARMUP_STEPS,
        "last": last,
        "steps": last + STEPS_BEHIND,
        "workers": options.workers,
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    path = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    if way.is_ours:
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command sets it, before torch is there
    command = [sys.executable, "-m", "benchmarks.step_clock", json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way.name} failed: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def rows_of(
    contenders: Sequence[Way],
    found: Sequence[Sequence[dict[str, float]]],
    options: argparse.Namespace,
    *,
    device: torch.device,
) -> list[EndToEndRow]:
    """Return a row for each contender.

    Args:
        contenders: The float32 pipeline first.
        found: Of each, the figures of every round.
        options: With the prices.
        device: On a GPU the wall clock counts, elsewhere the processor's time.
    """
    clips = [[one["clips"] for one in rounds] for rounds in found]
    per_clip = {
        name: [tuple(one[name] / one["clips"] for one in rounds) for rounds in found]
        for name in ("wall", "main", "workers")
    }
    both = [
        tuple(map(sum, zip(*sides, strict=True))) for sides in zip(per_clip["main"], per_clip["workers"], strict=True)
    ]
    counting = per_clip["wall"] if device.type != "cpu" else both
    in_bf16 = next((place for place, one in enumerate(contenders) if not one.is_ours and one.bf16), None)
    rows = []
    for place, one in enumerate(contenders):
        waits = [rounds["waited"] for rounds in found[place] if rounds["waited"] is not None]
        seconds = 1000 * statistics.median(both[place])
        wall = statistics.median(per_clip["wall"][place])
        price = 1000 * wall * options.gpu_hour / 3600 if device.type == "cuda" else seconds * options.core_hour / 3600
        assert len(set(clips[place])) == 1
        rows.append(
            EndToEndRow(
                contender=one.name,
                videos="prepared" if one.prepared else "original",
                wall=per_clip["wall"][place],
                step=per_clip["main"][place],
                reading=per_clip["workers"][place],
                data_wait=statistics.median(waits) if waits else None,
                clips_per_second=1 / wall,
                processor_seconds=seconds,
                price=price,
                faster=ratio(counting[place], counting[0]) if place else None,
                faster_than_bf16=ratio(counting[place], counting[in_bf16]) if one.is_ours and in_bf16 else None,
                step_faster=ratio(per_clip["main"][place], per_clip["main"][0]) if place else None,
                reading_faster=_ratio_where_read(per_clip["workers"][place], per_clip["workers"][0])
                if place
                else None,
            )
        )
    return rows


def _ratio_where_read(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Ratio | None:
    return ratio(ours, theirs) if min(ours) > 0 else None  # without workers, reading is part of the step


def written(folder: Path, number: int, seconds: int) -> Path:
    """Write videos like those of Kinetics."""
    folder.mkdir()
    print(f"writing {number} videos of {seconds} s ...", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(min(number, num_processors()), multiprocessing.get_context("spawn")) as processes:
        done = [
            processes.submit(write_clip, folder / f"{seed:04}.mp4", seed=seed, num_frames=seconds * FRAME_RATE)
            for seed in range(number)
        ]
        for one in done:
            one.result()
    return folder


def write(folder: Path, stem: str, rows: list[EndToEndRow], facts: dict[str, object]) -> tuple[Path, Path]:
    """Write `<stem>.json` and `<stem>.md` into a folder, made if missing; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_markdown = folder / f"{stem}.json", folder / f"{stem}.md"
    values = {**facts, "reader_of_the_usual_pipeline": opener()[0], "rows": [asdict(row) for row in rows]}
    as_json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    head = [f"- {name.replace('_', ' ')}: {value}" for name, value in values.items() if name != "rows"]
    text = "\n".join(["# From files to weights", "", *head, "", *table(rows), "", *LEGEND, ""])
    as_markdown.write_text(text, encoding="utf-8")
    return as_json, as_markdown


LEGEND = (
    "Pre-training from files; videos of 340x256, 30 frames a second, H.264, unless a folder was given. The usual",
    "pipeline: decord2, PIL transforms of each frame, float32 to the device, transformers' model and torch's AdamW",
    "in a plain loop. Faster: than it in float32, and in bfloat16, on a CPU by the processor time of all processes,",
    "median of the rounds [lowest, highest]; step, reading: of these alone. Steps before the 5th, in which workers",
    "start and the monitor looks at the model, do not count, nor the last 3. The price is that of processor time",
    "(on a GPU: of the wall clock) at the stated price.",
)


def table(rows: list[EndToEndRow]) -> list[str]:
    """Return the lines of the table."""
    head = (
        "contender",
        "videos",
        "clips/s",
        "waits for data",
        "step, ms a clip",
        "reading, ms a clip",
        "1,000 clips: processor s",
        "price",
        "faster",
        "than bfloat16",
        "step",
        "reading",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (
            row.contender,
            row.videos,
            f"{row.clips_per_second:.2f}",
            "not known" if row.data_wait is None else f"{100 * row.data_wait:.1f} %",
            f"{1000 * statistics.median(row.step):.0f}",
            f"{1000 * statistics.median(row.reading):.1f}",
            f"{row.processor_seconds:.0f}",
            f"{row.price:.5f}",
            *map(_shown, (row.faster, row.faster_than_bf16, row.step_faster, row.reading_faster)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _shown(found: Ratio | None) -> str:
    return "-" if found is None else f"{found.median:.2f} [{found.lowest:.2f}, {found.highest:.2f}]"
