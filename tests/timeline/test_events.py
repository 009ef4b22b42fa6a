"""Events in made-up scores: thresholds, merging, least length, and labels that are not there."""

from __future__ import annotations

import numpy as np
import pytest

from videomae.errors import ConfigError
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.events import Event, Hysteresis, chosen_labels, find_events, smoothed


def events(scores: list[float], **settings: float) -> tuple[Event, ...]:
    """Find the events in scores at seconds 0.5, 1.5, ..."""
    column = np.array(scores)[:, None]
    seconds = np.arange(len(scores)) + 0.5
    thresholds = {"high": [settings.pop("high", 0.5)], "low": [settings.pop("low", 0.3)]}
    return find_events(seconds, column, {0: "x"}, **thresholds, begin=0.0, end=float(len(scores)), **settings)


def spans(found: tuple[Event, ...]) -> list[tuple[float, float]]:
    return [(round(one.start_seconds, 6), round(one.end_seconds, 6)) for one in found]


def test_an_event_begins_and_ends_where_the_score_crosses_the_upper_threshold() -> None:
    (event,) = events([0.0, 0.0, 1.0, 0.8, 0.0, 0.0])
    assert spans((event,)) == [(2.0, 3.875)]
    assert (event.mean, event.peak, event.peak_seconds) == (pytest.approx(0.9), 1.0, 2.5)


def test_a_dip_that_stays_above_the_lower_threshold_does_not_end_an_event() -> None:
    assert spans(events([0.0, 1.0, 0.4, 0.35, 1.0, 0.0])) == [(1.0, 5.0)]
    assert spans(events([0.0, 1.0, 0.4, 0.2, 1.0, 0.0])) == [(1.0, pytest.approx(2.333333)), (3.875, 5.0)]


def test_scores_between_the_thresholds_alone_are_no_event_and_do_not_lengthen_one() -> None:
    assert events([0.4] * 6) == ()
    assert spans(events([0.4, 0.4, 0.9, 0.4, 0.4, 0.1])) == [(pytest.approx(1.7), pytest.approx(3.3))]


def test_events_at_the_ends_of_a_video_reach_to_its_ends() -> None:
    assert spans(events([0.9, 0.0, 0.0, 0.9])) == [(0.0, pytest.approx(0.944444)), (pytest.approx(3.055556), 4.0)]
    assert spans(events([0.9])) == [(0.0, 1.0)]
    assert spans(events([0.0, 1.0, 0.4])) == [(1.0, pytest.approx(2.333333))]


def test_short_gaps_are_merged_before_short_events_are_left_out() -> None:
    scores = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert len(events(scores)) == 3
    assert spans(events(scores, merge_seconds=1.0)) == [(1.0, 4.0), (7.0, 8.0)]
    assert spans(events(scores, merge_seconds=1.0, min_seconds=1.5)) == [(1.0, 4.0)]
    assert events(scores, min_seconds=1.5) == ()


def test_scores_that_come_one_by_one_give_the_events_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    scores = np.clip(np.cumsum(rng.normal(0, 0.2, 300)) % 1.2, 0, 1).tolist()
    finder = Hysteresis(high=0.5, low=0.3, begin=0.0)
    ended = [finder.update(number + 0.5, score) for number, score in enumerate(scores)]
    found = [one for one in (*ended, finder.finish(300.0)) if one is not None]
    whole = events(scores)
    assert len(whole) > 10
    assert [(one.start, one.end) for one in found] == [(one.start_seconds, one.end_seconds) for one in whole]
    for event in whole:
        inside = [s for n, s in enumerate(scores) if event.start_seconds <= n + 0.5 < event.end_seconds]
        assert event.peak == max(inside)
        assert event.mean == pytest.approx(np.mean(inside))


def test_smoothing_is_a_centred_mean_that_shortens_at_the_ends() -> None:
    scores = np.array([[0.0], [3.0], [0.0], [6.0], [0.0]])
    assert smoothed(scores, width=3)[:, 0].tolist() == [1.5, 1.0, 3.0, 2.0, 3.0]
    assert smoothed(scores, width=1) is scores


def test_an_unknown_label_is_refused_with_the_nearest() -> None:
    assert chosen_labels(["b"], ("a", "b")) == {1: "b"}
    assert chosen_labels(None, ("a", "b")) == {0: "a", 1: "b"}
    with pytest.raises(ConfigError, match="label 'jumping' is none of the model's 2 classes: did you mean 'jump'"):
        chosen_labels(["jumping"], ("run", "jump"))
    with pytest.raises(ConfigError, match=r"'x' is none of the model's 2 classes: it has run, jump$"):
        chosen_labels(["x"], ("run", "jump"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0.0}, "step is 0; it is in seconds, above 0, such as --step 2"),
        ({"window": -1.0}, "window is -1; it is in seconds, above 0"),
        ({"smooth": -1.0}, "smooth is -1; it is in seconds, at least 0"),
        ({"high": 0.0}, "high is 0; it is a score above 0 and at most 1"),
        ({"high": 0.4, "low": 0.6}, "low is 0.6 and high is 0.4; .* give a --low of at most --high"),
        ({"batch_size": 0}, "batch_size is 0; it is a number of windows, at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimelineConfig(**settings)  # type: ignore[arg-type]
