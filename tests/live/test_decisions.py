"""Events from scores that come one by one: smoothing, least length, cool-down, an end that nothing announces."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from videomae.errors import ConfigError
from videomae.live.configs import StreamConfig
from videomae.live.decisions import DecisionMaker, LiveEvent


def maker(**settings: float) -> DecisionMaker:
    config = StreamConfig(**{"smooth": 1, **settings})  # type: ignore[arg-type]
    return DecisionMaker({0: "x"}, config, thresholds=None, start_time=1_800_000_000.0)


def told(scores: list[float], decisions: DecisionMaker) -> list[LiveEvent]:
    """Feed a score a second."""
    return [
        event
        for number, score in enumerate(scores)
        for event in decisions.decide(np.array([score]), seconds=float(number), latency=0.1)
    ]


def test_an_event_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    start, end = told([0.0, 0.0, 1.0, 0.9, 0.45, 0.9, 0.0, 0.0], maker())
    assert (start.event, start.label, start.seconds, start.duration) == ("start", "x", 1.5, None)
    assert (end.event, end.seconds, end.score) == ("end", pytest.approx(5.444), 1.0)
    assert end.duration == pytest.approx(3.944)
    assert datetime.fromisoformat(start.time).timestamp() == pytest.approx(1_800_000_001.5)
    assert start.latency == 0.1


def test_smoothed_scores_are_told_with_the_time_that_they_are_about() -> None:
    events = told([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], maker(smooth=3))
    assert [(one.event, one.seconds) for one in events] == [("start", 2.5), ("end", pytest.approx(6.5))]


def test_short_events_and_those_in_a_cool_down_are_not_told_but_counted() -> None:
    decisions = maker(min_seconds=1.0)
    events = told([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0], decisions)
    assert [(one.event, one.seconds) for one in events] == [("start", 3.5), ("end", 6.5)]
    assert decisions.suppressed == 1
    decisions = maker(cooldown=5.0)
    events = told([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0], decisions)
    assert [(one.event, one.seconds) for one in events] == [
        ("start", 0.0),
        ("end", 0.5),
        ("start", 7.5),
        ("end", 8.5),
    ]
    assert decisions.suppressed == 1


def test_a_lost_stream_ends_what_is_on_and_the_next_begins_anew() -> None:
    decisions = maker()
    (start,) = told([0.0, 1.0, 1.0], decisions)
    (end,) = decisions.finish(2.5, "the stream was lost")
    assert (start.event, end.event, end.seconds, end.why) == ("start", "end", 2.5, "the stream was lost")
    assert decisions.on() == {}
    (again,) = decisions.decide(np.array([1.0]), seconds=60.0, latency=0.0)
    assert (again.event, again.seconds) == ("start", 60.0)
    assert decisions.on() == {"x": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, "rate is 0; it must be above 0, such as --rate 2"),
        ({"smooth": 0}, "smooth is 0; it is a number of decisions, at least 1"),
        ({"cooldown": -1.0}, "cooldown is -1; it is in seconds, at least 0"),
        ({"low": 0.9}, "low is 0.9 and high is 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamConfig(**settings)  # type: ignore[arg-type]
