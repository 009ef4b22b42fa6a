"""When and on how many clips to measure."""

from __future__ import annotations

import pytest

from videomae.monitor.alarms import PLATEAU_FRACTION
from videomae.monitor.configs import MonitorConfig
from videomae.monitor.plan import BEGINNING, MEASURING, PROBING, TRAINING, plan_measurements


@pytest.mark.parametrize(("total", "batch"), [(800, 16), (1200, 16), (20_000, 32), (1_000_000, 512)])
@pytest.mark.parametrize("videos", [16, 64, 500])
def test_the_cost_is_within_its_limit(total: int, batch: int, videos: int) -> None:
    config = MonitorConfig()
    plan = plan_measurements(config, total_steps=total, batch_size=batch, num_videos=videos)
    count = 1 + len(plan.steps)
    cost = plan.num_clips * (BEGINNING + MEASURING * count) + PROBING * count
    assert cost <= 1.1 * config.max_cost * TRAINING * total * batch
    assert len(plan.steps) >= 8


@pytest.mark.parametrize("total", [1, 2, 8, 300, 100_000])
def test_the_last_step_is_measured_and_steps_rise(total: int) -> None:
    plan = plan_measurements(MonitorConfig(), total_steps=total, batch_size=4, num_videos=100)
    assert plan.steps[-1] == total
    assert list(plan.steps) == sorted(set(plan.steps))
    assert plan.steps[0] == 1


@pytest.mark.parametrize("total", [25, 1200, 99_999])
def test_a_plateau_can_be_judged_before_a_tenth_of_the_run(total: int) -> None:
    plan = plan_measurements(MonitorConfig(), total_steps=total, batch_size=16, num_videos=64)
    assert any(PLATEAU_FRACTION * total <= step < 0.1 * total for step in plan.steps)


def test_few_videos_and_short_runs_measure_what_there_is() -> None:
    assert plan_measurements(MonitorConfig(), total_steps=3, batch_size=2, num_videos=2).num_clips == 2
    assert plan_measurements(MonitorConfig(), total_steps=3, batch_size=2, num_videos=50).num_clips == 4
    assert plan_measurements(MonitorConfig(), total_steps=3, batch_size=2, num_videos=0).num_clips == 0
