"""How many altered copies `videomae dedupe` finds, and how often it takes other videos for copies.

    python -m experiments.footage.copies VIDEOS --out experiments/results/footage/copies.json

Of each video in a folder so many copies are written that there are `--copies` in all, each altered at random
(`variations.py`); all of them, with the originals, are compared with each other.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.footage.variations import Variation, draw_variation
from videomae.search.copies import find_copies
from videomae.search.frame_prints import FramePrints, frame_prints
from videomae.video.opening import open_reader
from videomae.video.write import write_video

RATE = 15.0  # frames a second of originals and copies
SECONDS = 5.0
LONG_SIDE = 128


class Item(NamedTuple):
    """A video, the family it is of, and what was done to it."""

    family: int
    variation: Variation | None
    prints: FramePrints


def families(folder: Path, total: int, *, seed: int) -> list[Item]:
    """Write the copies one by one, and look at each as it is decoded."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mkv", ".avi"))
    rng = np.random.default_rng(seed)
    items = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "copy.mp4"
        for family, path in enumerate(paths):
            with open_reader(path, fps=RATE) as reader:
                count = min(len(reader), int(SECONDS * RATE))
                scale = LONG_SIDE / max(reader.info.width, reader.info.height)
                size = tuple(2 * round(side * scale / 2) for side in (reader.info.height, reader.info.width))
                original = reader.frames(np.arange(count), size=size)  # type: ignore[arg-type]
            write_video(file, original, frame_rate=RATE)
            items.append(Item(family, None, frame_prints(file)))
            for _ in range(total // len(paths) + (family < total % len(paths))):
                variation = draw_variation(rng)
                write_video(file, variation.frames(original, RATE), frame_rate=RATE, quality=variation.quality)
                items.append(Item(family, variation, frame_prints(file)))
    return items


def judged(items: list[Item]) -> dict[str, object]:
    """Compare all with all; count pairs, and how far offsets and speeds are off from original to copy."""
    start = time.monotonic()
    found = sorted(find_copies([item.prints for item in items]), key=lambda copy: -copy.score)
    seconds = time.monotonic() - start
    pairs = {(copy.one, copy.other): copy for copy in found}
    family = np.array([item.family for item in items])
    same = sum(int(n * (n - 1) // 2) for n in np.bincount(family))
    right = sum(family[one] == family[other] for one, other in pairs)
    originals = {item.family: number for number, item in enumerate(items) if item.variation is None}
    outcomes: list[tuple[int, Variation, bool]] = []
    offsets, speeds = [], []
    for number, item in enumerate(items):
        if item.variation is None:
            continue
        copy = pairs.get((originals[item.family], number))
        outcomes.append((item.family, item.variation, copy is not None))
        if copy is None:
            continue
        # Second t of the original is second (t - start) / speed of the copy.
        expected = -item.variation.start / item.variation.speed
        offsets.append(abs(copy.offset_seconds - expected))
        speeds.append(abs(copy.speed - 1 / item.variation.speed))
    copies = len(outcomes)
    recalled = sum(is_found for *_, is_found in outcomes)
    wrong = Counter(
        tuple(sorted((int(family[one]), int(family[other])))) for one, other in pairs if family[one] != family[other]
    )
    moving = [copy for copy in found if not copy.is_still]
    right_moving = sum(family[copy.one] == family[copy.other] for copy in moving)
    ranked_first = sum(family[copy.one] == family[copy.other] for copy in found[:copies])
    return {
        "originals": len(originals),
        "copies": copies,
        "recall_of_copies": recalled / copies,
        "recall_by_kind": recall_by_kind(outcomes),
        "recall_by_family": recall_by_family(outcomes),
        "pairs_found": len(pairs),
        "pairs_of_one_family": same,
        "recall_of_pairs": right / same,
        "precision": right / max(len(pairs), 1),
        "false_pairs": len(pairs) - int(right),
        "pairs_in_which_something_moves": len(moving),
        "precision_where_something_moves": right_moving / max(len(moving), 1),
        "false_where_something_moves": len(moving) - int(right_moving),
        "pairs_of_other_families": len(items) * (len(items) - 1) // 2 - same,
        "first_ranks_right": ranked_first / min(copies, max(len(found), 1)),
        "offset_error_median": float(np.median(offsets)) if offsets else None,
        "offset_error_90": float(np.quantile(offsets, 0.9)) if offsets else None,
        "speed_error_median": float(np.median(speeds)) if speeds else None,
        "seconds_to_compare": seconds,
        "false_by_families": [[*families, count] for families, count in wrong.most_common(20)],
        "missed": [
            {"family": number, **asdict(variation)} for number, variation, is_found in outcomes if not is_found
        ][:100],
    }


def recall_by_kind(outcomes: Sequence[tuple[int, Variation, bool]]) -> dict[str, dict[str, float]]:
    """Return the recall of copies to which something was done; each was to half of them, with whatever else."""
    kinds: dict[str, Callable[[Variation], bool]] = {
        "smaller": lambda one: one.scale < 1,
        "bars": lambda one: one.bars > 0,
        "faster or slower": lambda one: one.speed != 1,
        "cut at the beginning": lambda one: one.start > 0,
        "faded in": lambda one: one.fade > 0,
        "rate factor of 30 or more": lambda one: one.quality >= 30,
        "encoded again alone": lambda one: (one.scale, one.bars, one.speed, one.start, one.fade) == (1, 0, 1, 0, 0),
        "all of these": lambda one: one.scale < 1 and one.bars > 0 and one.speed != 1 and one.start > 0 < one.fade,
    }
    found = {}
    for name, is_kind in kinds.items():
        those = [is_found for _, variation, is_found in outcomes if is_kind(variation)]
        found[name] = {"copies": len(those), "recall": sum(those) / max(len(those), 1)}
    return found


def recall_by_family(outcomes: Sequence[tuple[int, Variation, bool]]) -> dict[str, float]:
    """Return the recall of the copies of each original, by its number, the lowest first."""
    those: dict[int, list[bool]] = defaultdict(list)
    for number, _, is_found in outcomes:
        those[number].append(is_found)
    recalls = {str(number): sum(one) / len(one) for number, one in those.items()}
    return dict(sorted(recalls.items(), key=lambda item: item[1]))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--copies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="file of what the copies look like, read where it is there")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.kept is not None and options.kept.exists():
        items = pickle.loads(options.kept.read_bytes())
    else:
        items = families(options.videos, options.copies, seed=options.seed)
        if options.kept is not None:
            options.kept.write_bytes(pickle.dumps([(one.family, one.variation, one.prints) for one in items]))
    result = judged([Item(*one) for one in items])
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({name: value for name, value in result.items() if name not in ("missed", "recall_by_family")})


if __name__ == "__main__":
    main()
