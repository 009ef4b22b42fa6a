"""Draw the package's motion set in many processes: `python -m experiments.learning.make_motion OUT.npz`.

`--scale 0.1` makes a tenth of it, for rehearsal.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.machinery import ModuleSpec
from multiprocessing import Pool
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

try:
    import av  # noqa: F401
except ModuleNotFoundError:  # the machine has no video library: drawing needs none, importing the package's file does

    class _Absent:
        """Finds an empty module for `av` and everything in it."""

        def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            loader: Any = self
            return ModuleSpec(name, loader, is_package=True) if name.split(".")[0] == "av" else None

        def create_module(self, spec: ModuleSpec) -> MagicMock:
            return MagicMock(name=spec.name)

        def exec_module(self, module: object) -> None:
            pass

    sys.meta_path.insert(0, _Absent())

from experiments.learning.labelled import MOTION_TEST, MOTION_TRAIN, MOTION_VAL
from videomae.data.synthetic import MOTION_CLASSES, motion_frames
from videomae.engine.seeding import numpy_generator

KEPT_FRAMES = 20  # every second of 40: 16 for a clip and 4 to start at
FIRST = 100_000  # index of the first clip: none is in a set that the command writes


def draw(job: tuple[int, int]) -> np.ndarray:
    """Draw one clip, `[F, 64, 64, 3]` uint8."""
    label, index = job
    rng = numpy_generator(7, "motion", MOTION_CLASSES[label], FIRST + index)
    return motion_frames(MOTION_CLASSES[label], size=64, num_frames=2 * KEPT_FRAMES, rng=rng)[::2]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    options = parser.parse_args()
    counts = [max(2, round(options.scale * count)) for count in (MOTION_TRAIN, MOTION_VAL, MOTION_TEST)]
    roles = np.repeat(np.arange(3), counts)
    jobs = [(label, index) for index in range(len(roles)) for label in range(len(MOTION_CLASSES))]
    with Pool(options.processes) as pool:
        clips = np.stack(pool.map(draw, jobs, chunksize=4))
    temporary = options.out.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        clips=clips,
        labels=np.array([job[0] for job in jobs]),
        roles=roles[[job[1] for job in jobs]],
        classes=np.array(MOTION_CLASSES),
    )
    temporary.rename(options.out)


if __name__ == "__main__":
    main()
