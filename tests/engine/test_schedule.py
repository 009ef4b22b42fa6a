import math

import numpy as np
import pytest
import torch

from videomae.engine.schedule import ScheduleConfig, constant_rates, learning_rates, set_learning_rate, step_counts
from videomae.errors import ConfigError


def literal_table(total, warmup, peak, final):
    """The original's table, word for word from its description: linspace, then a cosine over what is left."""
    num_cosine = total - warmup
    cosine = [final + 0.5 * (peak - final) * (1 + np.cos(np.pi * i / num_cosine)) for i in range(num_cosine)]
    return np.concatenate([np.linspace(0, peak, warmup), cosine])


@pytest.mark.parametrize(
    ("total", "warmup", "peak", "final"),
    [
        (1, 0, 1.0, 0.0),
        (10, 0, 1e-3, 1e-6),
        (10, 1, 1e-3, 1e-6),
        (10, 9, 1e-3, 1e-6),
        (10, 10, 1e-3, 1e-6),
        (801 * 117, 40 * 117, 1.2e-3, 8e-5),
        (30 * 61, 5 * 61, 7.5e-4, 1.5e-6),
    ],
)
def test_table_equals_linspace_and_cosine(total, warmup, peak, final):
    table = learning_rates(total, warmup, peak=peak, final=final)
    assert table.dtype == np.float64
    assert table.shape == (total,)
    # An ulp: vectorised and scalar cosines may differ by one.
    np.testing.assert_allclose(table, literal_table(total, warmup, peak, final), rtol=4e-16, atol=0)


def test_first_step_of_the_warm_up_has_rate_zero_and_the_peak_comes_twice():
    table = learning_rates(100, 20, peak=0.5, final=0.01)
    assert table[0] == 0.0
    assert table[1] == pytest.approx(0.5 / 19)
    assert np.flatnonzero(table == 0.5).tolist() == [19, 20]


def test_last_step_stays_above_the_final_rate():
    table = learning_rates(100, 20, peak=0.5, final=0.01)
    assert table[-1] == pytest.approx(0.01 + 0.49 * 0.5 * (1 + math.cos(math.pi * 79 / 80)))
    assert table[-1] > 0.01
    assert (np.diff(table[20:]) < 0).all()


def test_learning_rates_refuse_a_warm_up_longer_than_the_run():
    with pytest.raises(ConfigError, match=r"warm-up has 41 steps and the whole run 40; .* or train longer"):
        learning_rates(40, 41, peak=1.0, final=0.0)


def test_step_counts_refuse_a_warm_up_longer_than_the_run():
    config = ScheduleConfig(steps=100, warmup_epochs=40)
    with pytest.raises(ConfigError, match=r"warm-up has 400 steps and the whole run 100; .* schedule.warmup_epochs"):
        step_counts(config, steps_per_epoch=10)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig(epochs=800, warmup_epochs=40), (93_600, 4_680)),
        (ScheduleConfig(epochs=2.5, warmup_steps=7), (292, 7)),
        (ScheduleConfig(steps=50), (50, 2)),
        (ScheduleConfig(steps=50, epochs=800, warmup_fraction=0.1), (50, 5)),
        (ScheduleConfig(steps=50, warmup_fraction=0.0), (50, 0)),
        (ScheduleConfig(steps=234, warmup_epochs=0.1), (234, 12)),
        (ScheduleConfig(epochs=0.001), (1, 0)),
    ],
)
def test_epochs_and_steps_become_steps(config, expected):
    assert step_counts(config, steps_per_epoch=117) == expected


def test_an_epoch_without_a_whole_batch_is_refused():
    with pytest.raises(ConfigError, match=r"epoch has 0 steps; .* smaller batch or more videos"):
        step_counts(ScheduleConfig(epochs=1), steps_per_epoch=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither epochs nor steps; .* set one of them"),
        ({"steps": 5, "warmup_fraction": 5.0}, r"schedule.warmup_fraction is 5; it is a fraction in \[0, 1\]"),
        (
            {"steps": 5, "warmup_steps": 1, "warmup_epochs": 0.5},
            "schedule.warmup_epochs is 0.5 and schedule.warmup_steps is 1",
        ),
        ({"epochs": 0}, "schedule.epochs is 0; a run has a length"),
        ({"epochs": math.nan}, "schedule.epochs is nan"),
        ({"epochs": math.inf}, "schedule.epochs is inf"),
        ({"steps": -1}, "schedule.steps is -1"),
        ({"steps": 5, "warmup_steps": -2}, "schedule.warmup_steps is -2; use 0 for no warm-up"),
        ({"steps": 5, "warmup_epochs": math.nan}, "schedule.warmup_epochs is nan"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ScheduleConfig(**settings)
    assert "\n" not in str(caught.value)


def test_set_learning_rate_multiplies_each_groups_scale():
    groups = [{"params": [torch.zeros(1)], "lr_scale": scale} for scale in (1.0, 0.25)]
    optimizer = torch.optim.SGD([*groups, {"params": [torch.zeros(1)]}], lr=9.0)
    set_learning_rate(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.1, 0.4]
    set_learning_rate(optimizer, 0.0)  # the first step of a warm-up: nothing accumulates in the scale
    set_learning_rate(optimizer, 0.8)
    assert [group["lr"] for group in optimizer.param_groups] == [0.8, 0.2, 0.8]


def test_a_constant_schedule_warms_up_stays_at_the_peak_and_falls_linearly():
    table = constant_rates(100, 10, peak=0.5, final=0.1, cooldown_fraction=0.2)
    np.testing.assert_allclose(table[:10], np.linspace(0.0, 0.5, 10))
    assert (table[10:80] == 0.5).all()
    np.testing.assert_allclose(table[80:], 0.5 - 0.4 * np.arange(20) / 20)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_cool_down_of_none_or_all_of_the_run_keeps_its_length(fraction):
    table = constant_rates(20, 5, peak=1.0, final=0.0, cooldown_fraction=fraction)
    assert table.shape == (20,)
    assert table[5] == 1.0
    assert (table[-1] == 1.0) == (fraction == 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "linear"}, "schedule.shape is 'linear'; it is 'cosine' or 'constant'"),
        ({"cooldown_fraction": 1.5}, r"schedule.cooldown_fraction is 1.5; it is a fraction in \[0, 1\]"),
    ],
)
def test_shapes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(steps=10, **settings)
