"""Each alarm is on where its fault is and off where it is not; the healthy history raises none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from histories import LOSSES, history

from videomae.monitor.alarms import ALARMS, raised
from videomae.monitor.history import History

PLATEAU = (1.05, 1.0, 1.001, 1.0)


def with_training(one: History, losses: list[float]) -> History:
    pairs = zip(one.measurements, losses, strict=True)
    return replace(one, measurements=tuple(replace(each, train_loss=loss) for each, loss in pairs))


# Name of the alarm, the faulty history, a history just on the sound side, and words of the evidence.
CASES: dict[str, tuple[str, History, History, str]] = {
    "plateau": (
        "not learning",
        history(PLATEAU),
        history((1.05, 1.0, 0.999, 0.99)),
        "the loss is 100.0% of the trivial prediction's after 10% of the run; below 99.7 % is learning",
    ),
    "plateau that is being approached": (
        "not learning",
        history((20.0, 1.2, 1.2, 1.2)),
        history((20.0, 4.0, 2.0, 1.5)),
        "the loss is 120.0% of the trivial",
    ),
    "plateau in the warm-up": (
        "not learning",
        history(PLATEAU),
        history(PLATEAU, beginning={"warmup_steps": 100}),
        "the loss is",
    ),
    "plateau after few clips": (
        "not learning",
        history(PLATEAU),
        history(PLATEAU, beginning={"batch_size": 8}),
        "the loss is",
    ),
    "plateau at the half of a short run": (
        "not learning",
        history((*PLATEAU, 1.0), steps=(0, 10, 50, 100, 500), beginning={"batch_size": 8}),
        history((*PLATEAU, 1.0), steps=(0, 10, 50, 100, 400), beginning={"batch_size": 8}),
        "after 50% of the run",
    ),
    "hidden pixels reach predictions": (
        "leaking mask",
        history(leak=0.5),
        history(leak=1e-5),
        "predictions change by 0.5 standard deviations when hidden pixels do",
    ),
    "overlap": ("leaking mask", history(overlap=0.25), history(), "25% of the decoded tokens are visible"),
    "copying": (
        "leaking mask",
        history(beginning={"baselines": {"zero": 1.0, "visible_mean": 0.9, "copy_nearest": 0.1, "interpolate": 0.5}}),
        history(beginning={"baselines": {"zero": 1.0, "visible_mean": 0.9, "copy_nearest": 0.3, "interpolate": 0.5}}),
        "copying the nearest visible tubelet has 11.1% of the trivial loss",
    ),
    "too good": (
        "leaking mask",
        history((1.05, 0.9, 0.1)),
        history((1.05, 0.9, 0.3)),
        "10.5% of the best baseline's",
    ),
    "black": (
        "constant clips",
        history(data={"blank": 0.25}),
        history(data={"blank": 0.05}),
        "25% of 32 clips show one",
    ),
    "still": (
        "constant clips",
        history(data={"still": 0.75}),
        history(data={"still": 0.4}),
        "in 75% of 32 clips nothing",
    ),
    "equal files": (
        "duplicated clips",
        history(data={"equal_files": 0.5}),
        history(data={"equal_files": 0.01}),
        "50% of the files are equal to another one",
    ),
    "twins": (
        "duplicated clips",
        history(data={"twins": 0.75}),
        history(data={"twins": 0.5}),
        "75% of 32 clips look like",
    ),
    "disorder": (
        "shuffled frames",
        history(data={"order": 1.0}),
        history(data={"order": 0.85}),
        "neighboring frames differ 1.00 times as much as any two",
    ),
    "long steps": (
        "learning rate too high",
        history(step_ratios={"early": 0.05, "late": 0.06, "decoder": 0.05}, rate_fraction=0.1),
        history(step_ratios={"early": 0.05, "late": 0.06, "decoder": 0.05}, rate_fraction=1.0),
        "a step at the highest rate would change the weights by 50%",
    ),
    "skipped": ("learning rate too high", history(num_skipped=3), history(), "3 of the newest steps were skipped"),
    "rising": (
        "learning rate too high",
        history((1.05, 1.0, 1.3, 1.4)),
        history((1.05, 1.0, 1.0, 1.4)),
        "the loss is 1.33 times what it was before training",
    ),
    "short steps": (
        "learning rate too low",
        history(step_ratios={"early": 1e-5}),
        history(step_ratios={"early": 1e-4}),
        "all steps of the run add up to a change of 0.90% of the weights",
    ),
    "short steps, of weights that were trained before": (
        "learning rate too low",
        history((1.05, 0.6, 0.6, 0.59, 0.58, 0.57), step_ratios={"early": 1e-5}),
        history((0.6, 0.6, 0.6, 0.59, 0.58, 0.57), step_ratios={"early": 1e-5}),
        "all steps of the run add up to a change of 0.90% of the weights",
    ),
    "dead norm": (
        "dead normalization",
        history(norm_std=0.0),
        history(norm_std=0.1),
        "the outputs of videomae.layernorm have a standard deviation of 0;",
    ),
    "pixels scaled twice": (
        "dead normalization",
        history(input_std=0.004),
        history(input_std=0.3),
        "the encoder's input has a standard deviation of 0.004",
    ),
    "pixels not normalized": (
        "dead normalization",
        history(input_mean=114.0),
        history(input_mean=1.0),
        "the encoder's input has a mean of 114",
    ),
    "one direction": (
        "collapsed features",
        history(effective_rank=1.1),
        history(effective_rank=4.0),
        "the effective rank of the features is 1.10 of 96",
    ),
    "blind": ("collapsed features", history(content=0.0), history(content=0.3), "0.00% of the features' variance"),
    "overfitting": (
        "over-fitting",
        with_training(history((1.05, 0.95, 0.9, 0.95, 1.0)), [1.05, 0.95, 0.9, 0.8, 0.6]),
        with_training(history((1.05, 0.95, 0.9, 0.95, 1.0)), [1.05, 0.95, 0.9, 0.95, 1.0]),
        "the held-out loss has risen by 11.1% since step 50 while the training loss fell",
    ),
}


@pytest.mark.parametrize(("name", "faulty", "sound", "evidence"), CASES.values(), ids=CASES.keys())
def test_an_alarm_is_on_with_its_fault_and_off_without(
    name: str, faulty: History, sound: History, evidence: str
) -> None:
    (alarm,) = [one for one in raised(faulty) if one.name == name]
    assert evidence in alarm.evidence
    assert name not in [one.name for one in raised(sound)]


def test_every_alarm_of_the_table_has_a_case() -> None:
    assert {name for name, *_ in CASES.values()} == {alarm.name for alarm in ALARMS}


@pytest.mark.parametrize("count", range(1, len(LOSSES) + 1))
def test_a_healthy_run_raises_nothing_at_any_time(count: int) -> None:
    assert raised(history(LOSSES[:count])) == []


@pytest.mark.parametrize(
    "last",
    [
        {"step_ratios": {}},
        {"rate_fraction": 0.0},
        {"train_loss": None},
    ],
)
def test_what_was_not_measured_raises_nothing(last: dict[str, Any]) -> None:
    assert raised(history(data={"order": None}, **last)) == []


def test_overfitting_is_not_judged_on_clips_that_are_trained_on() -> None:
    faulty = with_training(history((1.05, 0.95, 0.9, 0.95, 1.0)), [1.05, 0.95, 0.9, 0.8, 0.6])
    seen = replace(faulty, beginning=replace(faulty.beginning, unseen=False))
    assert [one.name for one in raised(faulty)] == ["over-fitting"]
    assert raised(seen) == []


def test_the_line_names_thing_value_rule_cause_and_remedy_on_one_line() -> None:
    (alarm,) = raised(history(data={"equal_files": 0.5}))
    assert alarm.line() == (
        "warning: duplicated clips: 50% of the files are equal to another one; less than 5 % should be. Likely "
        "cause: the same videos under several names. Try: keep one of each"
    )
    assert all("\n" not in one.line() for _, faulty, *_ in CASES.values() for one in raised(faulty))
