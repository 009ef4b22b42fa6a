"""Pack labelled videos into one small file of JPEG frames, so that an experiment can travel without its videos.

    python experiments/prepare_clips.py ../shared/datasets/fight --stride 2 --out fight.npz

The folder holds `labels.csv` with the columns path, label and group. Of each video 32 frames are kept, every
`stride`-th, from the middle; frames are resized to a short side of 80 pixels and cropped to the middle 80 x 80.
Groups are dealt to five folds, largest first, each to the fold where its classes are rarest: no group is in two.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from videomae.data.augment import resize_centre
from videomae.video.decode import VideoReader

NUM_FRAMES = 32
SIZE = 80
FOLDS = 5


def main() -> None:
    """Read the videos and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stride", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with (options.folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    encoded: list[bytes] = []
    counts: list[int] = []
    for row in rows:
        with VideoReader(options.folder / row["path"]) as reader:
            span = min(NUM_FRAMES, -(-len(reader) // options.stride))
            start = max(0, (len(reader) - (span - 1) * options.stride - 1) // 2)
            indices = [min(start + number * options.stride, len(reader) - 1) for number in range(span)]
            frames = reader.frames(indices)
        clip = resize_centre(frames, size=SIZE).permute(0, 2, 3, 1).numpy()  # [T, S, S, C]
        counts.append(len(clip))
        for frame in clip:
            file_object = io.BytesIO()
            Image.fromarray(frame).save(file_object, "JPEG", quality=85)
            encoded.append(file_object.getvalue())
    np.savez(
        options.out,
        data=np.frombuffer(b"".join(encoded), np.uint8),
        lengths=np.array([len(one) for one in encoded], np.int32),
        frames=np.array(counts, np.int16),
        labels=np.array([classes.index(row["label"]) for row in rows], np.int16),
        folds=np.array(deal_folds(rows), np.int16),
        groups=np.array([row["group"] for row in rows]),
        classes=np.array(classes),
        paths=np.array([row["path"] for row in rows]),
    )
    print(options.out, len(rows), "videos", sum(map(len, encoded)) / 1e6, "MB")


def deal_folds(rows: list[dict[str, str]]) -> list[int]:
    """Return the fold of each row; rows of one group share it."""
    by_group: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        by_group[row["group"]][row["label"]] += 1
    totals = [Counter[str]() for _ in range(FOLDS)]
    fold_of: dict[str, int] = {}
    for group, counts in sorted(by_group.items(), key=lambda item: (-item[1].total(), item[0])):
        cost = [
            sum((total[label] + count) ** 2 - total[label] ** 2 for label, count in counts.items())
            for total in totals
        ]
        fold_of[group] = int(np.argmin(cost))
        totals[fold_of[group]].update(counts)
    return [fold_of[row["group"]] for row in rows]


if __name__ == "__main__":
    main()
