"""Events of `videomae timeline` beside known segments: motion videos are stitched to longer ones.

    python -m benchmarks.timeline MODEL --videos 20

Speed: `benchmarks.window_speed`; memory: `benchmarks.flat_memory`.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np

from videomae.data.synthetic import FRAME_RATE, MOTION_CLASSES, motion_frames
from videomae.engine.seeding import numpy_generator
from videomae.inference.predictor import Predictor
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import Timeline
from videomae.video.write import write_video


def events(model: str, *, videos: int, seed: int) -> None:
    predictor = Predictor(model, device="cpu")
    rng = np.random.default_rng(seed)
    for config in (TimelineConfig(), TimelineConfig(step=0.16), TimelineConfig(step=0.16, window=0.8)):
        errors: list[float] = []
        hits = num_events = num_segments = 0
        for number in range(videos):
            names = [str(rng.choice(MOTION_CLASSES))]
            while len(names) < 8:  # neighbours differ, so that there is a boundary
                names.append(str(rng.choice([one for one in MOTION_CLASSES if one != names[-1]])))
            lengths = rng.integers(50, 126, len(names))  # 2 to 5 seconds
            frames = [
                motion_frames(
                    name, size=64, num_frames=int(length), rng=numpy_generator(seed + 1000, "stitch", number, k)
                )
                for k, (name, length) in enumerate(zip(names, lengths, strict=True))
            ]
            with tempfile.TemporaryDirectory() as folder:
                write_video(Path(folder) / "v.mp4", np.concatenate(frames), frame_rate=FRAME_RATE)
                timeline = Timeline.from_video(predictor, Path(folder) / "v.mp4", config=config)
            edges = [0.0, *itertools.accumulate(float(one) / FRAME_RATE for one in lengths)]
            truth = list(zip(names, edges[:-1], edges[1:], strict=True))
            num_events, num_segments = num_events + len(timeline.events), num_segments + len(truth)
            for event in timeline.events:
                for segment in truth:
                    name, start, end = segment
                    shared = min(end, event.end_seconds) - max(start, event.start_seconds)
                    whole = max(end, event.end_seconds) - min(start, event.start_seconds)
                    if name == event.label and shared >= 0.5 * whole:
                        hits += 1
                        errors += [abs(event.start_seconds - start), abs(event.end_seconds - end)]
                        truth.remove(segment)
                        break
        print(
            f"window {config.window}, step {timeline.step_seconds:.2f} s: F1 at IoU 0.5 "
            f"{2 * hits / (num_events + num_segments):.3f} "
            f"({hits} of {num_segments} segments found, {num_events} events), boundary error median "
            f"{np.median(errors):.3f} s, 90th percentile {np.quantile(errors, 0.9):.3f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    events(options.model, videos=options.videos, seed=options.seed)


if __name__ == "__main__":
    main()
