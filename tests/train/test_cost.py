"""What a run says of itself: its size before the first step, its duration after the first few."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videomae.engine.progress import StepWork
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe
from videomae.train import cost
from videomae.train.cost import (
    ClipCost,
    DurationEstimate,
    RunCost,
    classification_clip_cost,
    duration_text,
    pretraining_clip_cost,
    time_text,
)
from videomae.train.finetune import build_classifier, finetune
from videomae.train.pretrain import build_model, pretrain

Pretrain = Callable[..., PretrainRecipe]
Finetune = Callable[..., FinetuneRecipe]
NOON = datetime.datetime(2024, 8, 14, 12, 0)
LARGE = ClipCost(tokens=1568, visible=160, decoded=1408, step_flops=200_000_000_000)


def run_cost(**changes: object) -> RunCost:
    values = {
        "clip": LARGE,
        "num_parameters": 94_000_000,
        "num_videos": 1000,
        "batch_size": 8,
        "total_steps": 100_000,
        "start_step": 0,
        "device": "cpu",
        "precision": "fp32",
    }
    values |= changes
    passed = values["num_videos"] // values["batch_size"]  # type: ignore[operator]
    return RunCost(**{"steps_per_epoch": passed, **values})  # type: ignore[arg-type]


def estimate(total: int, *, device: str = "cpu", start: int = 0) -> tuple[DurationEstimate, list[float]]:
    """An estimate with a clock of its own: seconds are what the list holds."""
    clock = [0.0]
    made = DurationEstimate(
        total_steps=total, start_step=start, device=device, clock=lambda: clock[0], now=lambda: NOON
    )
    return made, clock


def test_tokens_of_pretraining_are_those_that_the_model_is_given() -> None:
    recipe = load_recipe(PretrainRecipe, "kinetics400_small", ["--data.train", "videos"])
    clip = pretraining_clip_cost(recipe.model.build(recipe.clip, use_mean_pooling=False), recipe)
    assert (clip.tokens, clip.visible, clip.decoded) == (1568, 160, 1408)
    assert clip.step_flops == pytest.approx(63.1e9, abs=0.05e9)  # of the published small model
    assert clip.line() == "tokens a clip: 1568 (160 visible, 1408 decoded)"


def test_tokens_of_fine_tuning_are_all_tokens() -> None:
    recipe = load_recipe(FinetuneRecipe, "kinetics400_small", ["--data.train", "videos"])
    clip = classification_clip_cost(recipe.model.build(recipe.clip, num_labels=400))
    assert clip.line() == "tokens a clip: 1568"
    assert clip.step_flops == pytest.approx(339e9, abs=0.5e9)


def test_lines_before_the_first_step_tell_the_size_of_the_run() -> None:
    small = ClipCost(tokens=512, visible=48, decoded=464, step_flops=10**6)
    lines = run_cost(clip=small, total_steps=600, num_videos=33, precision="bf16").lines()
    assert lines == [
        "parameters: 94,000,000",
        "steps: 600; 8 clips a step, 150 epochs of 33 videos",
        "tokens a clip: 512 (48 visible, 464 decoded)",
        "device: cpu, precision bf16",
    ]
    assert run_cost(clip=small, start_step=40, total_steps=100).lines()[1].startswith("steps: 100, 60 left; ")


def test_a_run_of_days_on_a_cpu_says_so_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "peak_flops_per_second", lambda kind, dtype: 1e11)
    *_, duration, advice = run_cost().lines()  # 1.6e17 operations at 100 GFLOP/s
    assert duration.startswith("expected duration: at least 19 days, judged from 1.6e+17 floating-point operations")
    assert "the 100 GFLOP/s of this processor" in duration
    assert advice.startswith("this takes more than a day on a CPU: use a machine with a GPU, a smaller recipe")
    assert len(run_cost(device="cuda").lines()) == 4
    assert len(run_cost(start_step=99_000).lines()) == 4


def test_a_short_run_is_told_without_measuring_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(kind: str, dtype: torch.dtype) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(cost, "peak_flops_per_second", measure)
    assert len(run_cost(total_steps=200).lines()) == 4
    few = ClipCost(tokens=16, visible=4, decoded=12, step_flops=10**6)
    assert run_cost(clip=few, total_steps=1000).step_work() == StepWork(flops=8e6, peak=None)


def test_the_work_of_a_step_is_that_of_all_clips_beside_the_peak_of_all_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def measure(kind: str, dtype: torch.dtype) -> float:
        asked.append((kind, dtype))
        return 1e12

    monkeypatch.setattr(cost, "peak_flops_per_second", measure)
    work = run_cost(device="cuda", precision="bf16", processes=4).step_work()
    assert work == StepWork(flops=8 * 2e11, peak=4e12)
    assert asked == [("cuda", torch.bfloat16)]


def test_a_device_without_room_for_the_measurement_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(kind: str, dtype: torch.dtype) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(cost, "peak_flops_per_second", measure)
    assert run_cost(device="cuda").step_work() == StepWork(flops=8 * 2e11, peak=None)


def test_the_duration_is_the_median_step_without_the_first() -> None:
    made, clock = estimate(total=606)
    told = []
    for step, seconds in enumerate((500.0, 20.0, 20.0, 1000.0, 20.0, 20.0, 20.0), start=1):
        clock[0] += seconds
        told.append(made.after(step, synchronized=True))
    assert told[:5] == [[]] * 5
    assert told[5] == ["expected duration: about 3 h 20 min, done around 15:20 (20 s a step)"]
    assert told[6] == []


def test_a_device_that_runs_ahead_is_timed_only_where_the_loss_was_read() -> None:
    made, clock = estimate(total=1000, device="cuda")
    told = []
    for step in range(1, 31):
        read = step % 10 == 0
        clock[0] += 1.0 if read else 0.001  # the device is waited for in one step of ten
        told += [(step, line) for line in made.after(step, synchronized=read)]
    assert [step for step, _ in told] == [20]
    assert told[0][1].endswith("(0.101 s a step)")


def test_a_run_of_days_on_a_cpu_says_so_after_its_first_steps_and_on_a_gpu_only_how_long() -> None:
    for device, count in (("cpu", 2), ("cuda", 1)):
        made, clock = estimate(total=100_000, device=device)
        lines: list[str] = []
        for step in range(1, 8):
            clock[0] += 10.0
            lines += made.after(step, synchronized=True)
        assert lines[0] == "expected duration: about 12 days, done around 26 August 2024 (10 s a step)"
        assert len(lines) == count
    assert "more than a day on a CPU" not in lines[0]


def test_a_run_of_few_steps_and_a_finished_one_are_not_estimated() -> None:
    for total, start in ((6, 0), (600, 600)):
        made, clock = estimate(total, start=start)
        for step in range(start + 1, start + 7):
            clock[0] += 1.0
            assert made.after(step, synchronized=True) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "about 1 s"),
        (89, "about 89 s"),
        (100, "about 2 min"),
        (89 * 60, "about 89 min"),
        (12_000, "about 3 h 20 min"),
        (7_200, "about 2 h"),
        (30 * 3600, "about 30 h"),
        (9 * 86400, "about 9 days"),
        (200 * 86400, "about 29 weeks"),
    ],
)
def test_durations_are_told_in_units_that_fit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3600, "13:00"),
        (20 * 3600, "Thursday 08:00"),
        (30 * 86400, "13 September 2024"),
        (1e13, "no year with four digits"),
    ],
)
def test_the_end_is_told_as_a_time_a_weekday_or_a_date(seconds: float, text: str) -> None:
    assert time_text(NOON, seconds) == text


def test_both_loops_tell_what_they_train_and_how_long_it_takes(
    pretrain_recipe: Pretrain, finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pretrain_recipe()
    pretrain(recipe, out=tmp_path / "pre")
    first = capsys.readouterr()
    model, _ = build_model(recipe)
    assert f"parameters: {sum(one.numel() for one in model.parameters()):,}\n" in first.out
    assert "steps: 8; 2 clips a step, 2.667 epochs of 6 videos\n" in first.out
    assert "tokens a clip: 16 (4 visible, 12 decoded)\n" in first.out
    assert "device: cpu, precision " in first.out
    assert first.err.count("expected duration: about 1 s, done around ") == 1
    tuned = finetune_recipe("--schedule.steps", "8")
    finetune(tuned, out=tmp_path / "fine")
    second = capsys.readouterr()
    classifier: VideoMAEForVideoClassification = build_classifier(tuned, ("left", "right"))[0]
    assert f"parameters: {sum(one.numel() for one in classifier.parameters()):,}\n" in second.out
    assert "tokens a clip: 16\n" in second.out
    assert "expected duration: about 1 s, done around " in second.err
