"""Time the reading of clips beside decord2, torchcodec and plain PyAV, on one core.

Every side opens a file, reads 16 frames at stride 4 from a random position, scales them to 224x224 RGB, and closes
the file. In each round every side reads every video once, in an order that changes; so a busy machine slows all.

    python -m benchmarks.decode
    python -m benchmarks.decode --clips 12 --rounds 15
    python -m benchmarks.decode --videos VIDEOS   # real videos as well, as they are and prepared
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.film import FRAME_RATE, write_clip, write_repeated
from benchmarks.measure import Ratio, Times, ratio
from benchmarks.readers import Frames, Read, contenders, ours, versions
from benchmarks.report import machine
from videomae.collection.configs import PrepareConfig
from videomae.collection.transcode import PrepareJob, prepare_file
from videomae.data.scan import scan_unlabelled
from videomae.video.decode import VideoReader
from videomae.video.index_store import IndexStore

RESULTS = Path(__file__).parent / "results"
OURS, FIRST = "ours", "ours, first time"
PREPARED = {"original": "prepared", "long": "prepared", "prepared": "prepared"}
"""Kinds of videos, and which of them are the same ones prepared."""
PREPARED |= {"real": "real, prepared", "real, prepared": "real, prepared"}
NUM_FRAMES, STRIDE, SIDE = 16, 4, 224


@dataclass(frozen=True)
class Row:
    """One reader on one kind of videos."""

    videos: str
    """Kind of videos."""
    reader: str
    """Who reads."""
    times: Times
    """Seconds for a clip in each round."""
    clips_per_second: float
    """By the median of the processor time."""
    ratio: Ratio
    """How many times faster this package's reader is on the same videos, read before, by processor time."""
    prepared_ratio: Ratio
    """How many times faster it is on the prepared copies of the original videos."""
    difference: float
    """Mean absolute difference from its frames, of 255."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write both files."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    facts: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.decode --clips {options.clips} --rounds {options.rounds} "
        f"--seconds {options.seconds} --hours {options.hours:g}"
        + ("" if options.videos is None else f" --videos {options.videos.name} --count {options.count}"),
        **machine(torch.device("cpu")),
        **versions(),
    }
    with tempfile.TemporaryDirectory(prefix="videomae-") as folder, one_core():
        kinds = write_videos(Path(folder), options)
        facts["bytes"] = {kind: sum(path.stat().st_size for path in set(paths)) for kind, paths in kinds.items()}
        rows = measure(kinds, IndexStore(folder, (Path(folder, "store"),)), rounds=options.rounds)
    lines = table(rows)
    print("\n".join(lines))
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{facts['date']}-decode"
    values = {**facts, "rows": [asdict(row) for row in rows]}
    stem.with_suffix(".json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    head = [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    text = "\n".join(["# Reading clips beside other packages", "", *head, "", *lines, "", *LEGEND, ""])
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(stem.with_suffix(".json"))


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__.partition("\n")[0])
    found.add_argument("--clips", type=int, default=6, help="generated videos; default 6")
    found.add_argument("--seconds", type=int, default=10, help="length of each; default 10")
    found.add_argument("--hours", type=float, default=1.0, help="length of the long one; default 1")
    found.add_argument("--rounds", type=int, default=9, help="rounds that count; default 9")
    found.add_argument("--videos", type=Path, help="a folder of real videos to read too, as they are and prepared")
    found.add_argument("--count", type=int, default=24, help="of them, evenly through their names; default 24")
    found.add_argument("--out", type=Path, default=RESULTS, help="folder of the results; default benchmarks/results")
    return found


def write_videos(folder: Path, options: argparse.Namespace) -> dict[str, list[Path]]:
    """Write the videos of each kind."""
    originals, prepared = [], []
    for seed in range(options.clips):
        print(f"writing video {seed + 1} of {options.clips} ...", file=sys.stderr, flush=True)
        originals.append(folder / f"original_{seed}.mp4")
        write_clip(originals[-1], seed=seed, num_frames=options.seconds * FRAME_RATE)
        prepared.append(folder / f"prepared_{seed}.mp4")
        prepare_file(PrepareJob(originals[-1], prepared[-1], PrepareConfig()))
    times = max(1, round(options.hours * 3600 / options.seconds))
    long = folder / "long.mp4"
    write_repeated(originals[0], long, times=times)
    # The first reading of an hour takes a second: few of them.
    kinds = {"original": originals, "long": [long] * min(2, options.clips), "prepared": prepared}
    if options.videos is not None:
        kinds["real"] = chosen_videos(options.videos, options.count)
        kinds["real, prepared"] = []
        for number, path in enumerate(kinds["real"]):
            kinds["real, prepared"].append(folder / f"real_{number}.mp4")
            prepare_file(PrepareJob(path, kinds["real, prepared"][-1], PrepareConfig()))
    return kinds


def chosen_videos(folder: Path, count: int) -> list[Path]:
    """Return videos that lie evenly in the order of their names, and are long enough for a clip."""
    manifest = scan_unlabelled(folder)
    found = [Path(row.path) for row in manifest.rows]
    chosen = [found[number * len(found) // count] for number in range(min(count, len(found)))]
    return [path for path in dict.fromkeys(chosen) if num_frames(path, None) > NUM_FRAMES]


def measure(kinds: dict[str, list[Path]], store: IndexStore, *, rounds: int) -> list[Row]:
    """Read all videos with all readers, a round to warm up and some that count."""
    readers: dict[str, Read] = {OURS: ours(store), FIRST: ours(None), **contenders()}
    lengths = {path: num_frames(path, store) for paths in kinds.values() for path in set(paths)}
    strides = {path: min(STRIDE, (length - 1) // NUM_FRAMES) for path, length in lengths.items()}
    sides = [(kind, name) for kind in kinds for name in readers]
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {side: [] for side in sides}
    differences: dict[tuple[str, str], float] = {}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds} ...", file=sys.stderr, flush=True)
        rng = np.random.default_rng(number)
        starts = {
            kind: [int(rng.integers(lengths[path] - NUM_FRAMES * strides[path])) for path in kinds[kind]]
            for kind in kinds
        }
        expected: dict[str, list[Frames]] = {}
        for kind, name in sides if number == 0 else [sides[place] for place in rng.permutation(len(sides))]:
            wall, processor = time.perf_counter(), time.process_time()
            clips = [
                readers[name](path, range(start, start + NUM_FRAMES * strides[path], strides[path]), SIDE)
                for path, start in zip(kinds[kind], starts[kind], strict=True)
            ]
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            if number:
                seconds[kind, name].append((wall / len(clips), processor / len(clips)))
            else:
                wanted = expected.setdefault(kind, clips)  # ours come first
                pairs = zip(clips, wanted, strict=True)
                errors = [float(np.abs(one.astype(int) - other).mean()) for one, other in pairs]
                differences[kind, name] = statistics.mean(errors)
    times = {side: Times(*(tuple(clock) for clock in zip(*seconds[side], strict=True))) for side in sides}
    return [
        Row(
            kind,
            name,
            times[kind, name],
            1 / statistics.median(times[kind, name].processor),
            ratio(times[kind, OURS].processor, times[kind, name].processor),
            ratio(times[PREPARED[kind], OURS].processor, times[kind, name].processor),
            differences[kind, name],
        )
        for kind, name in sides
    ]


def num_frames(path: Path, store: IndexStore | None) -> int:
    """Return the number of frames of a video, and keep its index as the first epoch does."""
    with VideoReader(path, store=store) as reader:
        return len(reader)


LEGEND = (
    "16 frames at stride 4 from a random position, 224x224 RGB; opening the file included; one core, processor time.",
    "Videos: 340x256, 30 frames a second, H.264 with x264's defaults; long: one of them again and again; prepared:",
    "`videomae data prepare`. ours: from the second epoch on; first time: no index is kept. Times faster: median of",
    "the rounds and [lowest, highest]; beside its own videos prepared. real: of a folder, at a smaller stride where",
    "they are short. Difference: mean of the absolute difference from our frames, of 255.",
)


def table(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    head = ("videos", "reader", "clips/s", "ours is times faster", "ours, prepared, is times faster", "difference")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (
            row.videos,
            row.reader,
            f"{row.clips_per_second:.1f}",
            _shown(row.ratio),
            _shown(row.prepared_ratio),
            f"{row.difference:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _shown(found: Ratio) -> str:
    return f"{found.median:.2f} [{found.lowest:.2f}, {found.highest:.2f}]"


if __name__ == "__main__":
    main()
