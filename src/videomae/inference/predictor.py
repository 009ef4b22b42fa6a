"""What is going on in this video: class probabilities for files or frames.

One view is the middle of the video, as in validation; several are those of the published test protocols, each with
the processor's centre crop. Probabilities are averaged over the views.
"""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videomae.data.datasets import BadVideo
from videomae.engine.precision import DeviceName, Precision, autocast, compute_dtype
from videomae.errors import ConfigError, RunError, VideoReadError
from videomae.inference.files import list_videos
from videomae.inference.loaded import load_classifier
from videomae.video.decode import VideoReader
from videomae.video.sampling import ClipConfig, IntArray, centre_clip, view_clips

Frames = NDArray[np.uint8]
BAR_COLUMNS = 24  # width of the bar of probability 1 in the table
SOME_FAILED = 2  # exit status


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one video, and what they were judged from."""

    path: str | None
    """The file; None for frames."""
    labels: tuple[str, ...]
    """Class names, most probable first, as many as were asked for and there are."""
    label_numbers: tuple[int, ...]
    """Their numbers."""
    probabilities: tuple[float, ...]
    """Their probabilities; those of all classes add up to 1."""
    frame_indices: tuple[tuple[int, ...], ...]
    """`[S][T]` numbers of the frames of each view."""
    frame_seconds: tuple[tuple[float, ...], ...] | None
    """`[S][T]` times of these frames from the start of the video; None for frames."""

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        return asdict(self)


class Predictor:
    """A classifier with its processor and frame sampling, ready for videos.

    Args:
        source: Folder of a classifier or of a finished fine-tuning run, weights file, or Hub name.
        device: Where to compute.
        clip: How clips are sampled; as the record beside the weights says where not given.
        precision: Number format of the products. float32 by default, so that probabilities are the same everywhere.

    Raises:
        WeightsError: If the source cannot be loaded or holds no classifier.
        ConfigError: If the clip does not fit the network, or the device is not there.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        device: DeviceName = "auto",
        clip: ClipConfig | None = None,
        precision: Precision = "fp32",
    ) -> None:
        loaded = load_classifier(source, clip=clip, device=device)
        self.source = loaded.source
        self.model = loaded.model
        self.processor = loaded.processor
        self.clip = loaded.clip
        self.classes = loaded.classes
        self._dtype = compute_dtype(precision, loaded.model.device)

    def predict(self, video: str | os.PathLike[str] | Frames, *, top_k: int = 5, num_views: int = 1) -> Prediction:
        """Classify one video.

        Args:
            video: A file; or frames, uint8 `[n, H, W, 3]` RGB. As many frames as a clip has are the clip; any other
                number is sampled like a video of that many frames.
            top_k: Number of classes to return, at least 1.
            num_views: S, clips to average over: 1 is the middle of the video.

        Returns:
            The prediction.

        Raises:
            VideoReadError: If the file cannot be read.
            ConfigError: If a number is below 1, or the frames are of another shape or type.
            RunError: If the network's answer is not finite.
        """
        for name, value in (("top_k", top_k), ("num_views", num_views)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if isinstance(video, np.ndarray):
            path, seconds = None, None
            indices = self._indices_of_frames(video, num_views)
            frames = video[indices.reshape(-1)]
        else:
            path = os.fspath(video)
            with VideoReader(path) as reader:
                indices = clip_indices(len(reader), self.clip, num_views=num_views)  # [S, T]
                frames = reader.frames(indices.reshape(-1))
                times = reader.timestamps_seconds[indices]
            seconds = tuple(tuple(row) for row in times.tolist())
        shares = self.probabilities(frames.reshape(*indices.shape, *frames.shape[1:]))
        if not np.isfinite(shares).all():
            raise RunError(f"the network's answer to {path or 'the frames'} is not finite: its weights are damaged")
        order = np.argsort(-shares, kind="stable")[:top_k].tolist()
        return Prediction(
            path=path,
            labels=tuple(self.classes[number] for number in order),
            label_numbers=tuple(order),
            probabilities=tuple(shares[order].tolist()),
            frame_indices=tuple(tuple(row) for row in indices.tolist()),
            frame_seconds=seconds,
        )

    @torch.inference_mode()
    def probabilities(self, clips: Frames) -> NDArray[np.float64]:
        """Return the mean over clips of each clip's softmax.

        Args:
            clips: uint8 `[S, T, H, W, 3]`, frames as they are in the video.

        Returns:
            float64 `[K]`.
        """
        pixel_values = torch.cat(
            [
                self.processor(one, return_tensors="pt", input_data_format="channels_last").pixel_values
                for one in clips
            ]
        )  # [S, T, C, H, W]
        device = self.model.device
        with autocast(device, self._dtype):
            logits = self.model(pixel_values.to(device)).logits
        shares: NDArray[np.float64] = logits.cpu().double().softmax(dim=1).mean(dim=0).numpy()
        return shares

    def _indices_of_frames(self, frames: Frames, num_views: int) -> IntArray:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ConfigError(
                f"the frames have shape {list(frames.shape)} and dtype {frames.dtype}; they must be uint8 "
                "[n, H, W, 3], RGB"
            )
        if len(frames) == self.clip.num_frames:
            return np.arange(len(frames), dtype=np.int64)[None]
        return clip_indices(len(frames), self.clip, num_views=num_views)


def clip_indices(total_frames: int, clip: ClipConfig, *, num_views: int) -> IntArray:
    """Return the frame numbers of each view, `[S, T]`: the middle of the video for one, else the test protocol."""
    if num_views == 1:
        return centre_clip(total_frames, clip)[None]
    return view_clips(total_frames, clip, num_views=num_views)


def predict_files(
    predictor: Predictor,
    videos: Sequence[Path],
    *,
    top_k: int = 5,
    num_views: int = 1,
    json: bool = False,
) -> int:
    """Classify files and folders of files, and print the predictions on standard output.

    A file that cannot be read does not stop the others: it is reported on standard error.

    Args:
        predictor: The classifier.
        videos: Video files, and folders of them of any depth.
        top_k: Classes to print for each video.
        num_views: Clips to average over.
        json: Print one JSON object, `{"model", "predictions", "errors"}`, instead of tables.

    Returns:
        Exit status: 0, or 2 if a file could not be read.
    """
    predictions: list[Prediction] = []
    errors: list[BadVideo] = []
    console = Console(highlight=False, emoji=False)
    for item in list_videos(videos):
        prediction = item if isinstance(item, BadVideo) else _predict_file(predictor, item, top_k, num_views)
        if isinstance(prediction, BadVideo):
            errors.append(prediction)
            print(f"error: {prediction.reason}", file=sys.stderr)
            continue
        predictions.append(prediction)
        if not json:
            print_prediction(prediction, console)
    if json:
        values = {
            "model": predictor.source,
            "predictions": [one.to_dict() for one in predictions],
            "errors": [{"path": one.path, "error": one.reason} for one in errors],
        }
        print(json_format.dumps(values, indent=2, allow_nan=False))
    return SOME_FAILED if errors else 0


def print_prediction(prediction: Prediction, console: Console) -> None:
    """Print a prediction for people: the file, a row for each class, and what was looked at."""
    # A file name may hold bytes that are no text; no terminal takes the surrogates that Python puts for them.
    name = (prediction.path or "frames").encode("utf-8", "replace").decode("utf-8")
    console.print(Text(name), soft_wrap=True)  # never broken, so that it can be searched for and copied
    table = Table(box=None, show_header=False)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, share in zip(prediction.labels, prediction.probabilities, strict=True):
        line = "-" if console.options.ascii_only else "\N{BOX DRAWINGS HEAVY HORIZONTAL}"
        bar = (line * round(share * BAR_COLUMNS)).ljust(BAR_COLUMNS)
        table.add_row(f"{share:.1%}", Text(bar, style="cyan"), Text(label))
    console.print(table)
    numbers = [number for view in prediction.frame_indices for number in view]
    looked_at = f"frames {min(numbers)} to {max(numbers)}"
    if prediction.frame_seconds is not None:
        seconds = [second for view in prediction.frame_seconds for second in view]
        looked_at += f", {min(seconds):.2f} s to {max(seconds):.2f} s"
    if len(prediction.frame_indices) > 1:
        looked_at += f", {len(prediction.frame_indices)} views"
    console.print(Text(looked_at, style="dim"), soft_wrap=True)


def _predict_file(predictor: Predictor, path: Path, top_k: int, num_views: int) -> Prediction | BadVideo:
    try:
        return predictor.predict(path, top_k=top_k, num_views=num_views)
    except VideoReadError as error:
        return BadVideo(str(path), str(error))
