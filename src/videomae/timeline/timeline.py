"""A video over time: the probabilities of its windows, and its events."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError, RunError, VideoReadError
from videomae.inference.clips import clip_batches
from videomae.inference.inputs import EncodedVideo
from videomae.inference.predictor import Predictor
from videomae.inference.scores import Activation, scores_of
from videomae.inference.some_windows import NUM_WINDOWS, spread
from videomae.inference.windows import Windows, frame_times, open_as_far_as_whole, plan_windows, window_batches
from videomae.timeline.configs import DEFAULT_HIGH, LOW_OF_HIGH, SMOOTHED_WINDOWS, TimelineConfig
from videomae.timeline.events import Event, chosen_labels, find_events, smoothed
from videomae.video.encoded import encoded_name
from videomae.video.opening import Reader, ResampledReader, stored_frames

FloatArray = NDArray[np.float64]


class VideoFacts(NamedTuple):
    """What the files about a video say of it."""

    path: str
    """The file or address, as it was given."""
    seconds: float
    """How long it lasts, as far as it can be read."""
    frame_rate: float
    """Frames a second, on average."""
    num_frames: int
    """Frames that can be read."""
    width: int
    """As shown, pixels."""
    height: int
    """Likewise."""


class ScoredWindows(NamedTuple):
    """The scores of a batch of windows."""

    first: int
    """Index of the first of them."""
    scores: FloatArray
    """float64 `[b, K]`, see `inference.scores`."""


@dataclass(frozen=True)
class Timeline:
    """What a classifier says of a video over time."""

    video: VideoFacts
    """The video."""
    model: str
    """Where the model came from."""
    classes: tuple[str, ...]
    """K class names by label id."""
    activation: Activation
    """What made the scores: "softmax" or "sigmoid"."""
    frame_indices: NDArray[np.int64]
    """`[W, T]`, the frames of each window, by their indices in the whole video."""
    start_seconds: FloatArray
    """`[W]`, when each window begins, from the beginning of the video."""
    end_seconds: FloatArray
    """`[W]`, when each is over."""
    step_seconds: float
    """Distance of neighbouring windows."""
    probabilities: FloatArray
    """float64 `[W, K]`, the scores of each window as `Predictor.predict` gives them, not smoothed."""
    curves: FloatArray
    """float64 `[W, K]`, smoothed: what the events were found in."""
    labels: dict[int, str]
    """The classes that were looked for, by id."""
    events: tuple[Event, ...]
    """By their start."""
    fault: str | None = None
    """Why there is no more of it: the file is damaged from there on, or the work was stopped; None: it is whole."""
    strip: bytes = b""
    """JPEG of small frames at even distances, side by side; empty where none was asked for."""

    @property
    def seconds(self) -> FloatArray:
        """`[W]`, the centre of each window."""
        centres: FloatArray = (self.start_seconds + self.end_seconds) / 2
        return centres

    @classmethod
    def from_video(
        cls,
        model: Predictor | str | os.PathLike[str],
        video: EncodedVideo,
        *,
        config: TimelineConfig | None = None,
        labels: Sequence[str] | None = None,
        device: DeviceName = "auto",
    ) -> Self:
        """Classify the windows of one video and find its events.

        Args:
            model: A classifier, or where to load it from, as for `Predictor`.
            video: As for `VideoReader`: a path, an http(s) address, bytes or an open binary file.
            config: Windows, smoothing and thresholds.
            labels: Names of the classes to look for; all where not given.
            device: Where to compute, if the model is loaded here.

        Returns:
            The timeline; of a file that is damaged as far as it can be read, with `fault` saying so.

        Raises:
            VideoReadError: If nothing of the video can be read.
            ConfigError: If a length does not fit the video, a label is unknown, or the model is a regression.
            WeightsError: If the model cannot be loaded.
            RunError: If the model's output is not finite.
        """
        config = config or TimelineConfig()
        predictor = model if isinstance(model, Predictor) else Predictor(model, device=device)
        check_has_scores(predictor)
        wanted = chosen_labels(labels, predictor.classes)
        with open_as_far_as_whole(video, fps=predictor.clip.fps, decoder=predictor.decoder) as (reader, fault):
            windows = plan_windows(reader, predictor.clip, window_seconds=config.window, step_seconds=config.step)
            if not predictor.is_calibrated:
                some = windows.indices[spread(len(windows.indices), NUM_WINDOWS)]
                read = reader.frames_in_order
                predictor.calibrate_on(list(clip_batches(read, some, predictor.processor, batch_size=1)))
            facts = video_facts(reader, encoded_name(video))
            rows: list[FloatArray] = []
            try:
                for scored in score_windows(predictor, reader, windows, batch_size=config.batch_size):
                    rows.append(scored.scores)
            except VideoReadError as error:
                if not rows:
                    raise
                fault = str(error)
        scores = np.concatenate(rows) if rows else np.zeros((0, len(predictor.classes)))
        return cls.from_scores(predictor, facts, windows, scores, config=config, labels=wanted, fault=fault)

    @classmethod
    def from_scores(
        cls,
        predictor: Predictor,
        facts: VideoFacts,
        windows: Windows,
        scores: FloatArray,
        *,
        config: TimelineConfig,
        labels: dict[int, str],
        fault: str | None = None,
        strip: bytes = b"",
    ) -> Self:
        """Find the events in scores that are there.

        Args:
            predictor: The classifier that they are of.
            facts: The video.
            windows: Where its windows lie.
            scores: `[w, K]`, of the first w of them.
            config: Smoothing and thresholds.
            labels: Classes to look for, by id.
            fault: Why there are no more; None: there are all.
            strip: JPEG of small frames.

        Returns:
            The timeline.
        """
        count = len(scores)
        starts, ends = windows.start_seconds[:count], windows.end_seconds[:count]
        curves = smoothed(scores, width=_smoothing_width(config, windows.step_seconds))
        high = list(predictor.thresholds) if config.high is None else [config.high] * len(predictor.classes)
        if config.high is None and predictor.activation == "softmax":
            high = [DEFAULT_HIGH] * len(predictor.classes)
        low = [LOW_OF_HIGH * one if config.low is None else min(config.low, one) for one in high]
        events = find_events(
            (starts + ends) / 2,
            curves,
            labels,
            high=high,
            low=low,
            begin=float(starts[0]) if count else 0.0,
            end=float(ends[-1]) if count else 0.0,
            min_seconds=config.min_seconds,
            merge_seconds=config.merge_seconds,
        )
        return cls(
            facts,
            predictor.source,
            predictor.classes,
            predictor.activation,
            windows.stored_indices[:count],
            starts,
            ends,
            windows.step_seconds,
            scores,
            curves,
            labels,
            events,
            fault,
            strip,
        )

    def with_fault(self, fault: str) -> Self:
        """Return it marked as not whole."""
        return replace(self, fault=fault)


def check_has_scores(predictor: Predictor) -> None:
    """Refuse a regression, whose outputs are no probabilities.

    Raises:
        ConfigError: If the model is one.
    """
    if predictor.activation == "none":
        raise ConfigError(
            f"{predictor.source} is a regression, whose outputs have no thresholds: give a classifier, or use "
            "videomae predict for its values"
        )


def video_facts(reader: Reader, name: str) -> VideoFacts:
    """Return the facts of an opened video; of a part those of the whole, up to where the part ends."""
    stored = reader.reader if isinstance(reader, ResampledReader) else reader
    times, ends = frame_times(stored.timestamps_seconds, stored.info.frame_rate)
    seconds = float(ends[-1] - times[0])
    rate = len(times) / seconds if seconds > 0 else 25.0
    num_frames = int(stored_frames(stored, np.array([len(times) - 1]))[0]) + 1
    return VideoFacts(name, float(ends[-1]), rate, num_frames, stored.info.width, stored.info.height)


def score_windows(
    predictor: Predictor, reader: Reader, windows: Windows, *, batch_size: int, first: int = 0
) -> Iterator[ScoredWindows]:
    """Classify windows in batches, in one pass over the video.

    Args:
        predictor: The classifier.
        reader: The video.
        windows: From `plan_windows`.
        batch_size: Windows that go through the model together.
        first: Window to begin with, a multiple of the batch size.

    Yields:
        The scores of each batch, in order.

    Raises:
        VideoReadError: If a frame cannot be read; the batches before it have been given.
        RunError: If the output is not finite.
    """
    for batch in window_batches(reader, windows, predictor.processor, batch_size=batch_size, first=first):
        logits = predictor.clip_logits(batch.clips)
        if not logits.isfinite().all():
            raise RunError(f"the model's output for {reader.info.path} is not finite: its weights are damaged")
        yield ScoredWindows(batch.first, scores_of(logits, predictor.activation).numpy())


def _smoothing_width(config: TimelineConfig, step_seconds: float) -> int:
    """Return over how many windows scores are averaged, an odd number."""
    if config.smooth is None:
        return SMOOTHED_WINDOWS
    return 2 * round(config.smooth / step_seconds / 2) + 1 if config.smooth >= step_seconds else 1
