"""Windows a second over a long video: `timeline` and `features` beside the loops that their users would write.

    python -m benchmarks.window_speed --models small shipped toy --heights 720 240 --out windows.json
    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.window_speed --contenders timeline transformers --threads 2

Models have random weights; `small` is ViT-S at 224 pixels, `shipped` has the size of the model that ships with the
package, `toy` is next to nothing. Windows are those of the model's own sampling (16 frames, every fourth), half a
window apart or a quarter. Contenders, which take turns in one process:

- `timeline fp32`, `bf16`, `int8`: `Timeline.from_video`; the command takes bf16 where the processor has it
- `timeline openvino fp32`, `bf16`, `int8`: the same with `--backend openvino`, where it is installed
- `predict`: `Predictor.predict` on a part of the file for each window
- `transformers, seeking`: its model and image processor in a loop that reads every window on its own: the container
  is sought to the key frame before it and decoded to its end, and its frames are converted, float32
- `transformers`: its model and image processor in the loop that its users write: all frames decoded, converted and
  kept in a deque, the processor called for each window, float32
- `transformers, best`: the same with all decoding threads, frames that no window needs neither converted nor kept,
  and bfloat16
- `features fp32`, `bf16`, `int8`: a table of clip features; `single clips`: a call for each window

Rates are of the wall clock and of processor time, which tells work from waiting and does not mind a busy machine. By
the wall clock a pass also gains from decoding the next windows while the model computes, which only a machine with
nothing else to do can show, with the second command; the policy is the one that the `videomae` command sets, without
which threads that wait for work take the processor from decoding. Beside each rate stands the median of its multiples
of that of transformers' loop in the same turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch

from benchmarks.long_videos import camera_video
from videomae.engine.configs import InferencePrecision
from videomae.inference.calibration import calibrate
from videomae.inference.feature_job import write_feature_table
from videomae.inference.features import video_features
from videomae.inference.int8 import multiplies_exactly
from videomae.inference.loaded import load_encoder
from videomae.inference.predictor import Predictor
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import Windows, plan_windows
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.presets import PRESETS
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import Timeline
from videomae.video.opening import open_reader, part_name
from videomae.video.sampling import ClipConfig
from videomae.weights.shipped import unnamed_model

STRIDE = 4
PRECISIONS: tuple[InferencePrecision, ...] = ("fp32", "bf16", "int8")


class Rate(NamedTuple):
    """Windows a second in one turn."""

    wall: float
    processor: float


def model_settings(name: str) -> dict[str, Any]:
    """Return the configuration of a model by its name here."""
    match name:
        case "small":
            values = {key: value for key, value in PRESETS["small"].items() if not key.startswith("decoder")}
            return {**values, "num_labels": 400}
        case "shipped":
            values = VideoMAEConfig.from_pretrained(unnamed_model()).to_dict()
            kept = ("image_size", "patch_size", "num_frames", "hidden_size", "num_hidden_layers")
            return {key: values[key] for key in (*kept, "num_attention_heads", "intermediate_size")}
        case "toy":
            sizes = {"image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 8, "num_hidden_layers": 1}
            return {**sizes, "num_attention_heads": 1, "intermediate_size": 16}
    raise SystemExit(f"model is {name!r}; the known ones are small, shipped and toy")


def save_model(folder: Path, settings: dict[str, Any]) -> Path:
    """Write a classifier with random weights, its processor and its sampling; returns the folder."""
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(VideoMAEConfig(**settings, use_mean_pooling=True))
    model.save_pretrained(folder)
    height, width = model.config.image_height_width
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    VideoMAEImageProcessor(
        size={"shortest_edge": height}, crop_size={"height": height, "width": width}, image_mean=mean, image_std=std
    ).save_pretrained(folder)
    save_record(folder, ModelRecord(sampling=ClipConfig(num_frames=model.config.num_frames, stride=STRIDE)))
    return folder


def timeline_loop(predictor: Predictor, video: Path, step_seconds: float) -> np.ndarray:
    """Return the scores of all windows, in one pass."""
    return Timeline.from_video(predictor, video, config=TimelineConfig(step=step_seconds)).probabilities


def predict_loop(predictor: Predictor, video: Path, windows: Windows) -> np.ndarray:
    """Return the scores of all windows, each from a call of its own on a part of the file."""
    rows = np.zeros((len(windows.indices), len(predictor.classes)))
    for row, start, end in zip(rows, windows.start_seconds, windows.end_seconds, strict=True):
        prediction = predictor.predict(part_name(video, float(start), float(end)), top_k=len(row))
        row[list(prediction.label_numbers)] = prediction.probabilities
    return rows


def seeking_loop(model: Path, clip: ClipConfig, windows: Windows) -> Callable[[Path], np.ndarray]:
    """Return a function that gives the scores of all windows with transformers, each read on its own."""
    from transformers import VideoMAEForVideoClassification as Classifier
    from transformers import VideoMAEImageProcessor as Processor

    classifier, processor = Classifier.from_pretrained(model).eval(), Processor.from_pretrained(model)

    @torch.inference_mode()
    def loop(video: Path) -> np.ndarray:
        rows = []
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            assert stream.average_rate is not None
            ticks = 1 / (stream.time_base * stream.average_rate)  # of a frame
            for wanted in windows.indices:  # [T]
                container.seek(int(wanted[0] * ticks), stream=stream)
                frames = {}
                for frame in container.decode(stream):
                    assert frame.pts is not None
                    number = round(frame.pts / ticks)
                    if number in wanted:
                        frames[number] = frame.to_ndarray(format="rgb24")
                    if number >= wanted[-1]:
                        break
                inputs = processor([frames[number] for number in wanted.tolist()], return_tensors="pt")
                rows.append(classifier(**inputs).logits[0].double().softmax(-1).numpy())
        return np.stack(rows)

    return loop


def transformers_loop(model: Path, clip: ClipConfig, step: int, *, is_best: bool) -> Callable[[Path], np.ndarray]:
    """Return a function that gives the scores of all windows with transformers and a deque of frames."""
    from transformers import VideoMAEForVideoClassification as Classifier
    from transformers import VideoMAEImageProcessor as Processor

    classifier, processor = Classifier.from_pretrained(model).eval(), Processor.from_pretrained(model)
    span, every = clip.num_frames * clip.stride, clip.stride if is_best else 1
    assert step % every == 0, "frames that no window needs are those between the strides"

    @torch.inference_mode()
    def loop(video: Path) -> np.ndarray:
        frames: deque[np.ndarray] = deque(maxlen=span // every)
        rows = []
        with av.open(str(video)) as container:
            if is_best:
                container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if number + 1 >= span and (number + 1 - span) % step == 0:
                    inputs = processor(list(frames)[:: clip.stride // every], return_tensors="pt")
                    with torch.autocast("cpu", torch.bfloat16) if is_best else nullcontext():
                        logits = classifier(**inputs).logits
                    rows.append(logits[0].double().softmax(-1).numpy())
        return np.stack(rows)

    return loop


def features_loop(model: Path, video: Path, precision: InferencePrecision, step_seconds: float) -> np.ndarray:
    """Return the features of all windows, in one pass, as the command computes and writes them."""
    import pyarrow.parquet as pq

    out = video.with_name("features.parquet")
    choice = WindowChoice(step_seconds=step_seconds)
    write_feature_table(model, [video], out, windows=choice, device="cpu", precision=precision, min_cosine=0.0)
    return np.stack(pq.read_table(out)["vector"].to_numpy())


def contenders(model: Path, video: Path, overlap: float, wanted: list[str] | None) -> dict[str, Callable[[], Any]]:
    """Return what takes turns, by name."""
    predictor = Predictor(model, device="cpu")
    clip = predictor.clip
    span = clip.num_frames * clip.stride
    step = round(span * (1 - overlap))
    seconds = step / 25
    with open_reader(video) as reader:
        windows = plan_windows(reader, clip, step_seconds=seconds)
    precisions = [one for one in PRECISIONS if one != "int8" or multiplies_exactly()]
    predictors = {one: Predictor(model, device="cpu", precision=one) for one in precisions}
    has_openvino = importlib.util.find_spec("openvino") is not None
    by_openvino = {
        one: Predictor(model, device="cpu", precision=one, backend="openvino") for one in precisions if has_openvino
    }
    for opened in by_openvino.values():  # ranges are found, and kernels compiled, once for any number of videos
        calibrate(opened, [video])
        opened.predict(video)
    loaded = load_encoder(model, device="cpu")
    usual, best = (transformers_loop(model, clip, step, is_best=one) for one in (False, True))

    def single_clips() -> np.ndarray:
        parts = zip(windows.start_seconds, windows.end_seconds, strict=True)
        names = [part_name(video, float(start), float(end)) for start, end in parts]
        return np.stack([video_features(loaded, name, pooling="clip").features.numpy() for name in names])

    ways: dict[str, Callable[[], Any]] = {}
    for one in precisions:
        ways[f"timeline {one}"] = partial(timeline_loop, predictors[one], video, seconds)
        if one in by_openvino:
            ways[f"timeline openvino {one}"] = partial(timeline_loop, by_openvino[one], video, seconds)
    ways["predict"] = partial(predict_loop, predictor, video, windows)
    ways["transformers, seeking"] = partial(seeking_loop(model, clip, windows), video)
    ways["transformers"] = partial(usual, video)
    ways["transformers, best"] = partial(best, video)
    for one in precisions:
        ways[f"features {one}"] = partial(features_loop, model, video, one, seconds)
    ways["single clips"] = single_clips
    return {name: way for name, way in ways.items() if wanted is None or name.split()[0].strip(",") in wanted}


def measured(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, list[Rate]], dict[str, np.ndarray]]:
    """Let contenders take turns; returns their rates, and what each has found."""
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    found: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            found[name] = way()
            passed = time.perf_counter() - wall, time.process_time() - processor
            rates[name].append(Rate(len(found[name]) / passed[0], len(found[name]) / passed[1]))
    return rates, found


def multiples(rates: dict[str, list[Rate]], contender: str) -> list[float] | None:
    """Return by how much a contender is faster than transformers' loop, by wall clock and by processor time."""
    if "transformers" not in rates:
        return None
    turns = list(zip(rates[contender], rates["transformers"], strict=True))
    return [statistics.median(one[clock] / usual[clock] for one, usual in turns) for clock in (0, 1)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small", "shipped", "toy"])
    parser.add_argument("--heights", type=int, nargs="+", default=[720])
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.5, 0.75])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the video")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="that a model computes with; default: torch's choice")
    parser.add_argument("--contenders", nargs="+", help="first words of their names; default: all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rows = []
    for name in options.models:
        for height in options.heights:
            for overlap in options.overlaps:
                with tempfile.TemporaryDirectory() as folder:
                    model = save_model(Path(folder) / "model", model_settings(name))
                    video = camera_video(Path(folder) / "v.mp4", seconds=options.seconds, height=height)
                    rates, found = measured(contenders(model, video, overlap, options.contenders), options.repeats)
                reference = {"features": "features fp32", "single": "features fp32"}
                for contender, values in rates.items():
                    other = found.get(reference.get(contender.split()[0], "timeline fp32"), found[contender])
                    count = min(len(found[contender]), len(other)) - 1  # the last window may be moved back
                    apart = float(np.abs(found[contender][:count] - other[:count]).max())
                    wall, processor = (statistics.median(one[k] for one in values) for k in (0, 1))
                    times = multiples(rates, contender)
                    rows.append({
                        "model": name, "height": height, "overlap": overlap, "contender": contender,
                        "windows_per_second": wall, "windows_per_processor_second": processor,
                        "of_transformers": times and times[0],
                        "of_transformers_by_processor_time": times and times[1],
                        "windows": len(found[contender]), "apart": apart, "threads": torch.get_num_threads(),
                    })  # fmt: skip
                    print(
                        f"{name:8}{height:5}{overlap:6.2f}  {contender:24}{wall:8.2f} windows/s "
                        f"{processor:8.2f} a processor second, {len(found[contender])} windows, apart {apart:.1e}"
                        + (f", {times[0]:.2f} and {times[1]:.2f} times transformers" if times else ""),
                        flush=True,
                    )
    if options.out is not None:
        options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
