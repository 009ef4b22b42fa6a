"""Timelines of a video whose segments are known, by a classifier whose right answer is known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from color_models import CLASSES, save_color_classifier, write_color_video
from timeline.conftest import SEGMENTS
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.predictor import Predictor
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import Timeline
from videomae.video.decode import read_clip
from videomae.video.opening import part_name
from videomae.video.sampling import ClipConfig


@pytest.fixture(scope="module")
def predictor(color_folder: Path) -> Predictor:
    return Predictor(color_folder, device="cpu")


def boundary_errors(timeline: Timeline, segments: list[tuple[str, float]]) -> list[float]:
    """Return how far each boundary of the events is from that of the segment in its place."""
    edges = [0.0, *itertools.accumulate(seconds for _, seconds in segments)]
    assert [one.label for one in timeline.events] == [name for name, _ in segments]
    return [
        abs(found - wanted)
        for event, start, end in zip(timeline.events, edges[:-1], edges[1:], strict=True)
        for found, wanted in ((event.start_seconds, start), (event.end_seconds, end))
    ]


def f1_at_half(timeline: Timeline, segments: list[tuple[str, float]]) -> float:
    """Return the F1 of events, each of which is right if it and a segment of its label overlap by half of both."""
    edges = [0.0, *itertools.accumulate(seconds for _, seconds in segments)]
    truth = [(name, edges[k], edges[k + 1]) for k, (name, _) in enumerate(segments)]
    hits = 0
    for event in timeline.events:
        for number, (name, start, end) in enumerate(truth):
            shared = min(end, event.end_seconds) - max(start, event.start_seconds)
            whole = max(end, event.end_seconds) - min(start, event.start_seconds)
            if name == event.label and shared >= 0.5 * whole:
                hits += 1
                del truth[number]
                break
    return 2 * hits / (len(timeline.events) + len(segments))


@pytest.mark.parametrize(
    "settings", [{}, {"window": 1.6}, {"step": 0.1}, {"window": 1.6, "step": 0.2, "smooth": 0.0}]
)
def test_events_are_the_segments_to_half_a_step(
    predictor: Predictor, color_video: Path, settings: dict[str, float]
) -> None:
    timeline = Timeline.from_video(predictor, color_video, config=TimelineConfig(**settings))  # type: ignore[arg-type]
    errors = boundary_errors(timeline, SEGMENTS)
    assert np.median(errors) <= timeline.step_seconds / 2
    assert max(errors) <= max(timeline.step_seconds, 0.2)
    assert f1_at_half(timeline, SEGMENTS) == 1.0
    assert timeline.fault is None


def test_f1_falls_where_events_are_wrong(predictor: Predictor, color_video: Path) -> None:
    timeline = Timeline.from_video(predictor, color_video)
    shifted = [("red", 3.0), ("green", 9.5), ("blue", 3.0)]
    assert f1_at_half(timeline, shifted) == pytest.approx(2 * 1 / 8)


def test_probabilities_are_those_of_predict_on_the_same_frames(predictor: Predictor, color_video: Path) -> None:
    """Bit for bit, in any batch: on a processor windows go through the model one by one, as in a call of predict."""
    alone = Timeline.from_video(predictor, color_video, config=TimelineConfig(batch_size=1))
    batched = Timeline.from_video(predictor, color_video, config=TimelineConfig(batch_size=8))
    assert len(alone.frame_indices) > 30
    for row, frames in zip(batched.probabilities, batched.frame_indices, strict=True):
        prediction = predictor.predict(read_clip(color_video, frames))
        wanted = dict(zip(prediction.label_numbers, prediction.probabilities, strict=True))
        assert row.tolist() == [wanted[label] for label in range(3)]
    assert np.array_equal(batched.probabilities, alone.probabilities)


def test_a_video_as_short_as_a_clip_has_the_one_window_of_predict(predictor: Predictor, tmp_path: Path) -> None:
    video = write_color_video(tmp_path / "short.mp4", [("green", 0.4)])
    timeline = Timeline.from_video(predictor, video)
    prediction = predictor.predict(video)
    assert timeline.frame_indices.tolist() == [[0, 2, 2, 2]] == [list(row) for row in prediction.frame_indices]
    assert [one.label for one in timeline.events] == ["green"]
    assert (timeline.events[0].start_seconds, timeline.events[0].end_seconds) == (0.0, pytest.approx(0.3))


def test_a_part_of_a_video_has_the_times_of_the_whole(predictor: Predictor, color_video: Path) -> None:
    part = Timeline.from_video(predictor, part_name(color_video, 4.0, 9.0))
    assert [one.label for one in part.events] == ["green", "blue"]
    assert part.events[0].start_seconds == pytest.approx(4.0)
    assert part.events[0].end_seconds == pytest.approx(7.0, abs=0.2)


def test_only_the_labels_that_are_named_have_events(predictor: Predictor, color_video: Path) -> None:
    timeline = Timeline.from_video(predictor, color_video, labels=["blue"])
    assert [one.label for one in timeline.events] == ["blue"]
    assert timeline.probabilities.shape[1] == len(CLASSES)


def test_a_clip_of_a_frame_rate_reads_the_file_at_it(color_folder: Path, tmp_path: Path) -> None:
    slow = Predictor(color_folder, device="cpu", clip=ClipConfig(num_frames=4, stride=1, fps=5.0))
    video = write_color_video(tmp_path / "fast.mp4", [("red", 4.0), ("blue", 4.0)], rate=30.0)
    timeline = Timeline.from_video(slow, video)
    assert np.diff(timeline.frame_indices, axis=1).tolist()[0] == [6, 6, 6]
    assert timeline.video.num_frames == 240
    assert timeline.events[1].start_seconds == pytest.approx(4.0, abs=timeline.step_seconds / 2)


def test_a_video_that_breaks_in_the_middle_yields_what_was_decoded_and_says_so(
    predictor: Predictor, color_video: Path, tmp_path: Path
) -> None:
    whole = Timeline.from_video(predictor, color_video)
    cut = tmp_path / "cut.mkv"
    import av

    with av.open(str(color_video)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    part = Timeline.from_video(predictor, cut)
    assert part.fault is not None
    assert "cut.mkv is truncated" in part.fault
    count = len(part.probabilities) - 1  # the last window is moved back to the end
    assert 5 < count < len(whole.probabilities)
    np.testing.assert_allclose(part.probabilities[:count], whole.probabilities[:count], atol=1e-9)


def test_a_read_that_fails_on_the_way_leaves_the_windows_before_it(
    predictor: Predictor, color_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder is cut off by hand here: files that break while they are read again are rare."""
    from videomae.video.decode import VideoReader

    sound = VideoReader.frames_in_order

    def broken(reader: VideoReader, indices: np.ndarray, *, threads: int = 1) -> Iterator[np.ndarray]:
        yield from sound(reader, [one for one in indices if one <= 60], threads=threads)
        raise VideoReadError("colors.mp4 has no frame 61")

    monkeypatch.setattr(VideoReader, "frames_in_order", broken)
    timeline = Timeline.from_video(predictor, color_video, config=TimelineConfig(batch_size=2))
    assert timeline.fault == "colors.mp4 has no frame 61"
    assert 50 <= timeline.frame_indices.max() <= 60
    assert [one.label for one in timeline.events] == ["red", "green"]


def test_what_cannot_have_a_timeline_is_refused(predictor: Predictor, color_video: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"window is 60 seconds and .*colors\.mp4 has 16\.50"):
        Timeline.from_video(predictor, color_video, config=TimelineConfig(window=60.0))
    with pytest.raises(VideoReadError, match=r"none\.mp4"):
        Timeline.from_video(predictor, tmp_path / "none.mp4")
    with pytest.raises(ConfigError, match="label 'pink' is none of the model's 3 classes"):
        Timeline.from_video(predictor, color_video, labels=["pink"])
    folder = save_color_classifier(tmp_path / "regression")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "regression"}))
    with pytest.raises(ConfigError, match="is a regression, whose outputs have no thresholds"):
        Timeline.from_video(folder, color_video, device="cpu")
