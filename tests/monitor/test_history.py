"""The file read back, and where a run stands in words."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from histories import BEGINNING, LOSSES, history

from videomae.monitor.history import baselines_line, read_history, standing


def test_a_history_written_as_lines_is_read_back() -> None:
    whole = history()
    lines = [asdict(whole.beginning), *(asdict(one) for one in whole.measurements)]
    assert read_history(json.loads(json.dumps(lines))) == whole


def test_fields_of_a_later_version_are_ignored() -> None:
    whole = history()
    lines = [asdict(whole.beginning), *({**asdict(one), "later": 1} for one in whole.measurements)]
    assert read_history(lines) == whole


def test_nothing_measured_is_no_history() -> None:
    assert read_history([]) is None
    assert read_history([asdict(BEGINNING)]) is None


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (LOSSES[:1], "step 0: held-out loss 1.0500, 105.0% of the trivial prediction's: before the first step"),
        (LOSSES[:2], "step 10: held-out loss 1.0100, 101.0% of the trivial prediction's: not below it yet"),
        (LOSSES[:3], "98.0% of the trivial prediction's: below the trivial prediction since step 50: learning"),
        (LOSSES[:5], "90.0% of the trivial prediction's: below interpolation since step 100: learning"),
        ((*LOSSES[:5], 0.9), "below interpolation since step 100: no longer falling"),
        ((0.5, 0.5), "below interpolation since step 0: no change yet"),
        ((*LOSSES[:5], 0.93), "below interpolation since step 100: rising again"),
        ((1.05, 1.01, 0.9, 0.98, 0.9), "below interpolation since step 300: learning"),
    ],
)  # fmt: skip
def test_where_a_run_stands_is_said_in_words(losses: tuple[float, ...], said: str) -> None:
    assert said in standing(history(losses))


def test_copying_counts_as_a_baseline_where_it_is_better_than_the_trivial_one() -> None:
    pixels = {"zero": 18.0, "visible_mean": 1.0, "copy_nearest": 0.8, "interpolate": 0.6}
    assert "below copy-nearest since step 100: learning" in standing(
        history((1.2, 1.1, 0.9, 0.7), beginning={"baselines": pixels})
    )


def test_the_baselines_are_told_with_what_they_were_measured_on() -> None:
    line = baselines_line(BEGINNING)
    assert line == (
        "monitor: 16 clips that are held out; losses without learning: the trivial prediction 1.0000, "
        "the visible mean 1.0000, copy-nearest 1.8000, interpolation 0.9500"
    )
