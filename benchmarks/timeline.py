"""`videomae timeline` measured: speed beside plain loops, memory over hours, and events of known segments.

    python -m benchmarks.timeline speed MODEL --minutes 2 --repeats 3
    python -m benchmarks.timeline memory MODEL --hours 2
    python -m benchmarks.timeline events MODEL --videos 20

`speed` takes windows at the model's own sampling, half a window apart, from one file: with `Timeline.from_video`;
with `Predictor.predict` on a part of the file for each window; and with transformers' model and image processor in
the loop that its users write, a deque of decoded frames. The three take turns, and the median of each is told.
`memory` runs the command on a file made by repeating packets, and looks at the process's memory until it ends.
`events` stitches motion videos to longer ones and compares events with segments.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from benchmarks.stream import resident_mb
from videomae.data.synthetic import FRAME_RATE, MOTION_CLASSES, motion_frames
from videomae.engine.seeding import numpy_generator
from videomae.inference.predictor import Predictor
from videomae.inference.windows import plan_windows
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import Timeline
from videomae.video.opening import open_reader, part_name
from videomae.video.write import write_video

SECOND = 25  # frames


def repeated_video(path: Path, *, seconds: float, size: int = 240) -> Path:
    """Write a video of any length in seconds of work: a minute of motion, whose packets are repeated."""
    base = path.with_name("base.mp4")
    rng = numpy_generator(0, "benchmark")
    clips = [motion_frames(name, size=size, num_frames=3 * SECOND, rng=rng) for name in MOTION_CLASSES[:5]]
    write_video(base, np.concatenate(clips), frame_rate=FRAME_RATE, keyframe_interval=50)
    with av.open(str(base)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.dts is not None]
        content = [(bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe) for packet in packets]
        time_base, length = packets[0].time_base, sum(packet.duration or 0 for packet in packets)
        for number in range(round(seconds / float(length * time_base))):
            for data, pts, dts, duration, is_key in content:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, is_key
                shift = number * length
                packet.pts, packet.dts, packet.duration = (pts or 0) + shift, (dts or 0) + shift, duration
                target.mux(packet)
    base.unlink()
    return path


def timeline_loop(predictor: Predictor, video: Path) -> np.ndarray:
    """Return the scores of all windows, in one pass."""
    return Timeline.from_video(predictor, video).probabilities


def predict_loop(predictor: Predictor, video: Path) -> np.ndarray:
    """Return the scores of all windows, each from a call of its own on a part of the file."""
    with open_reader(video, fps=predictor.clip.fps) as reader:
        windows = plan_windows(reader, predictor.clip)
    rows = np.zeros((len(windows.indices), len(predictor.classes)))
    for row, start, end in zip(rows, windows.start_seconds, windows.end_seconds, strict=True):
        prediction = predictor.predict(part_name(video, float(start), float(end)), top_k=len(row))
        row[list(prediction.label_numbers)] = prediction.probabilities
    return rows


def transformers_loop(model: str, predictor: Predictor) -> Callable[[Path], np.ndarray]:
    """Return a function that gives the scores of all windows with transformers and a deque of frames."""
    import torch
    from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor

    classifier = VideoMAEForVideoClassification.from_pretrained(model).eval()
    processor = VideoMAEImageProcessor.from_pretrained(model)
    stride, span, step = (
        predictor.clip.stride,
        predictor.clip.span,
        predictor.clip.num_frames * predictor.clip.stride // 2,
    )

    @torch.inference_mode()
    def loop(video: Path) -> np.ndarray:
        frames: deque[np.ndarray] = deque(maxlen=span)
        rows = []
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                frames.append(frame.to_ndarray(format="rgb24"))
                if number + 1 >= span and (number + 1 - span) % step == 0:
                    inputs = processor(list(frames)[::stride], return_tensors="pt")
                    rows.append(classifier(**inputs).logits[0].double().softmax(-1).numpy())
        return np.stack(rows)

    return loop


def speed(model: str, *, minutes: float, repeats: int, size: int) -> None:
    predictor = Predictor(model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        video = repeated_video(Path(folder) / "long.mp4", seconds=60 * minutes, size=size)
        others = transformers_loop(model, predictor)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "timeline": lambda: timeline_loop(predictor, video),
            "predict": lambda: predict_loop(predictor, video),
            "transformers": lambda: others(video),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, np.ndarray] = {}
        for _ in range(repeats):
            for name, way in ways.items():
                begin = time.perf_counter()
                found[name] = way()
                rates[name].append(len(found[name]) / (time.perf_counter() - begin))
    count = min(map(len, found.values())) - 1  # transformers' loop has no last window that is moved back
    for name, values in rates.items():
        apart = np.abs(found[name][:count] - found["timeline"][:count]).max()
        print(
            f"{name:14}{statistics.median(values):8.2f} windows a second ({min(values):.2f} to {max(values):.2f}), "
            f"timeline is {statistics.median(rates['timeline']) / statistics.median(values):.2f}x, "
            f"probabilities differ by at most {apart:.1e}"
        )


def memory(model: str, *, hours: float, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        video = repeated_video(Path(folder) / "long.mp4", seconds=3600 * hours, size=size)
        print(f"{video.stat().st_size / 1e6:.0f} MB, {hours:g} hours, written in {time.perf_counter() - begin:.1f} s")
        out = Path(folder) / "events.json"
        command = [sys.executable, "-m", "videomae", "timeline", model, str(video), "--out", str(out)]
        command += ["--device", "cpu", "--step", "0.5"]
        found: list[tuple[float, float]] = []  # minutes of video done, MB
        row = 8 * len(Predictor(model, device="cpu").classes)
        with open(os.devnull, "w") as nothing, subprocess.Popen(command, stdout=nothing, stderr=nothing) as process:
            while process.poll() is None:
                time.sleep(1)
                scores = list(Path(f"{out}.parts").glob("*.f64"))
                try:
                    now = resident_mb(process.pid)
                except (RuntimeError, FileNotFoundError):
                    break
                if scores:
                    found.append((scores[0].stat().st_size / row, now))
            assert process.wait() == 0
        total = len(json.loads(out.read_text())["videos"][0]["windows"]["start"])
        minutes = [(count / total * 60 * hours, now) for count, now in found]
        later = [now for minute, now in minutes if minute >= 10]
        rate, pace = total / len(found), 3600 * hours / len(found)
        print(f"{total} windows in {len(found)} s, {rate:.1f} a second, {pace:.0f}x real time")
        growth = max(later) - later[0]
        print(f"at minute 10: {later[0]:.0f} MB; highest after it: {max(later):.0f} MB; growth {growth:.1f} MB")


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
    parser.add_argument("what", choices=("speed", "memory", "events"))
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=240, help="of the frames, pixels")
    options = parser.parse_args()
    match options.what:
        case "speed":
            speed(options.model, minutes=options.minutes, repeats=options.repeats, size=options.size)
        case "memory":
            memory(options.model, hours=options.hours, size=options.size)
        case "events":
            events(options.model, videos=options.videos, seed=options.seed)


if __name__ == "__main__":
    main()
