"""Counts that stop a run, and losses that are read late."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from videomae.engine.loop import BadVideoCount, LoopConfig, PendingSteps, SkippedSteps
from videomae.errors import ConfigError, RunError

BAD = {"a.mp4": "no video"}


def test_the_first_video_may_be_bad() -> None:
    count = BadVideoCount(0.05, num_videos=1000)
    count.add(1, BAD)
    for _ in range(38):
        count.add(1, {})
    assert count.num_seen == 39
    count.add(1, {})  # from 40 on the fraction counts: 1 of 40 is 2.5 %


def test_a_fraction_of_bad_videos_is_judged_after_forty_videos() -> None:
    count = BadVideoCount(0.05, num_videos=1000)
    count.add(1, BAD)
    for number in range(38):
        count.add(1, {f"{number}.mp4": "no video"})
    message = (
        r"40 of 40 videos \(100%\) cannot be read, more than loop.max_bad_fraction 0.05 allows; .* a.mp4 \(no vid"
    )
    with pytest.raises(RunError, match=message):
        count.add(1, {"last.mp4": "no video"})


def test_one_broken_video_of_twelve_is_counted_once_however_many_epochs() -> None:
    count = BadVideoCount(0.05, num_videos=12)
    for _ in range(100):
        count.add(6, BAD)
        count.add(6, {})
    assert count.num_seen == 1200
    assert count.summary() == ["skipped 1 video that could not be read:", "  a.mp4: no video"]


def test_too_many_bad_videos_are_counted_once_each() -> None:
    count = BadVideoCount(0.05, num_videos=50)
    bad = {f"{number}.mp4": "no video" for number in range(3)}
    count.add(25, {})
    with pytest.raises(RunError, match=r"^3 of 50 videos \(6%\) cannot be read, more than"):
        count.add(25, bad)


def test_reading_that_fails_now_and_then_does_not_add_up_over_epochs() -> None:
    count = BadVideoCount(0.05, num_videos=50)
    for epoch in range(20):  # another video in each: 40 % of the videos, 2 % of what was read
        count.add(50, {f"{epoch}.mp4": "the disk was away"})


def test_a_small_data_set_without_any_good_video_stops_after_one_pass() -> None:
    count = BadVideoCount(1.0, num_videos=3)
    count.add(1, {"a.mp4": "x"})
    count.add(1, {"b.mp4": "x"})
    count.add(1, {"b.mp4": "x"})  # an incomplete pass over the videos: c.mp4 may be good
    with pytest.raises(
        RunError, match=r"3 of 3 videos \(100%\) cannot be read, none is left; .* repair or remove them$"
    ):
        count.add(1, {"c.mp4": "x"})


def test_one_good_video_of_a_small_data_set_keeps_the_run_going() -> None:
    count = BadVideoCount(0.05, num_videos=2)
    for _ in range(10):
        count.add(1, BAD)
        count.add(1, {})
    assert count.num_seen == 20


def add(pending: PendingSteps, step: int, loss: float, norm: float) -> None:
    pending.add({"step": step}, loss=torch.tensor(loss), grad_norm=torch.tensor(norm), videos=[f"{step}.mp4"])


def test_a_step_is_read_with_its_loss_only_where_that_is_finite() -> None:
    pending = PendingSteps()
    add(pending, 1, 0.5, 2.0)
    pending.add({"step": 2, "clips": 0}, loss=None, grad_norm=None, videos=[])
    add(pending, 3, 0.25, math.inf)
    add(pending, 4, math.nan, math.nan)
    first, empty, gradient, loss = pending.read()
    assert first == {"step": 1, "loss": 0.5, "grad_norm": 2.0}
    assert empty == {"step": 2, "clips": 0}
    assert gradient == {"step": 3, "loss": 0.25, "grad_norm": math.inf, "skipped": True, "videos": ["3.mp4"]}
    assert math.isnan(loss.pop("grad_norm"))
    assert loss == {"step": 4, "skipped": True, "videos": ["4.mp4"]}
    assert pending.read() == []


def skipped(step: int) -> Mapping[str, object]:
    return {"step": step, "skipped": True, "videos": [f"{step}.mp4", "always.mp4"]}


def test_skipped_steps_are_counted_and_too_many_in_a_row_stop_the_run() -> None:
    steps = SkippedSteps(2)
    steps.add([skipped(1), skipped(2), {"step": 3, "loss": 1.0}, skipped(4)])
    assert steps.total == 3
    with pytest.raises(RunError) as caught:
        steps.add([skipped(5), skipped(6), {"step": 7, "loss": 1.0}])
    assert str(caught.value) == (
        "loss or gradient is not finite in steps 4 to 6, more than loop.max_skipped_steps 2 in a row; no weight was "
        "changed in them: resume with a lower optim.base_lr or with optim.clip_grad 1.0, or check the videos of "
        "these steps, 4.mp4, always.mp4, 5.mp4, 6.mp4"
    )
    assert steps.total == 5
    steps.add([skipped(8)])  # the row is broken


def test_of_many_videos_the_first_are_named() -> None:
    with pytest.raises(RunError, match=r"steps, 1.mp4, always.mp4, .*7.mp4 and 4 more, all named in metrics.jsonl$"):
        SkippedSteps(0).add([skipped(step) for step in range(1, 12)])


def test_a_resumed_run_keeps_the_total_and_may_skip_as_many_again() -> None:
    steps, resumed = SkippedSteps(2), SkippedSteps(2)
    steps.add([skipped(1), skipped(2)])
    resumed.load_state(steps.state())
    resumed.add([skipped(3), skipped(4)])
    assert resumed.total == 4
    assert resumed.summary() == ["skipped 4 steps because loss or gradient was not finite; metrics.jsonl names them"]
    assert SkippedSteps(2).summary() == []


def test_a_negative_number_of_skipped_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loop.max_skipped_steps is -1; use 0 to allow none, or more"):
        LoopConfig(max_skipped_steps=-1)
