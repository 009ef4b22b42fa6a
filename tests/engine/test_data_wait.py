"""The share of a run that goes into waiting for data, and the advice that follows."""

from __future__ import annotations

import time

import pytest
import torch

from videomae.engine import data_wait
from videomae.engine.data_wait import DataWait, workers_needed
from videomae.engine.progress import TrainingProgress


class Run:
    """A run on a clock of its own: a step waits, computes, and then something else happens."""

    def __init__(self, *, workers: int = 2, command: str | None = "videomae data prepare v p") -> None:
        self.now = 100.0
        self.wait = DataWait(torch.device("cpu"), workers=workers, command=command, clock=lambda: self.now)
        self.said: list[str] = []
        self.noted: list[dict[str, float]] = []

    def steps(self, number: int, *, waiting: float, computing: float, beside: float = 0.0) -> None:
        for _ in range(number):
            with self.wait.batch():
                self.now += waiting
            self.now += computing
            self.noted.append(self.wait.noted())
            self.wait.done()
            self.said += self.wait.advice()
            self.now += beside


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_wait, "num_processors", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_the_share_is_that_of_the_last_minute_after_the_warm_up_and_of_steps_alone() -> None:
    run = Run()
    run.steps(9, waiting=10.0, computing=0.1)
    assert run.wait.share is None, "workers start"
    run.steps(200, waiting=0.2, computing=0.6, beside=3.0)  # such as measuring and saving
    assert run.wait.share == pytest.approx(0.25)
    run.steps(200, waiting=0.0, computing=0.5)
    assert run.wait.share == 0.0


def test_it_is_noted_once_a_minute() -> None:
    run = Run()
    run.steps(400, waiting=0.1, computing=0.4)
    noted = [number for number, one in enumerate(run.noted) if one]
    assert len(noted) == 3
    assert noted[1] - noted[0] == 120
    assert run.noted[noted[-1]] == {"data_wait": 0.2}


def test_more_than_a_tenth_is_said_once_with_what_mends_it() -> None:
    run = Run(workers=2)
    run.steps(1000, waiting=0.5, computing=0.5)
    (line,) = run.said
    assert line.startswith("50% of the time is spent waiting for videos: --loop.workers 4 instead of 2 would help")
    assert line.endswith("; or this writes videos that are faster to read: videomae data prepare v p")
    quiet = Run()
    quiet.steps(1000, waiting=0.09, computing=0.91)
    assert quiet.said == []


@pytest.mark.parametrize(
    ("workers", "command", "said"),
    [
        (7, "videomae data prepare v p", ": this writes videos that are faster to read: videomae data prepare v p"),
        (7, None, ": more processors would help; there are 8, for 7 workers"),
        (0, None, ": --loop.workers 1 instead of 0 would help"),
    ],
)
def test_only_what_can_mend_it_is_advised(workers: int, command: str | None, said: str) -> None:
    run = Run(workers=workers, command=command)
    run.steps(300, waiting=0.3, computing=0.4)
    assert [line.partition("videos")[2] for line in run.said] == [said]


def test_the_processors_of_a_machine_are_divided_among_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    run = Run(workers=1, command=None)
    run.steps(300, waiting=0.8, computing=0.2)
    assert "there are 2, for 1 workers" in run.said[0]


def test_workers_are_as_many_as_read_as_fast_as_is_computed() -> None:
    assert workers_needed(0.5, 2) == 4
    assert workers_needed(0.12, 4) == 5
    assert workers_needed(0.75, 0) == 3
    assert workers_needed(1.0, 2) is None


def test_the_progress_shows_the_share_where_it_is_known() -> None:
    progress = TrainingProgress("training", total_steps=10)
    assert "waiting" not in progress.status()
    progress.data_wait = 0.123
    assert progress.status().endswith("  12% waiting for data")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_only_its_own_idle_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_wait, "WARMUP_STEPS", 0)
    monkeypatch.setattr(data_wait, "WARMUP_SECONDS", 0.0)
    shares = []
    for cycles in (100_000_000, 0):  # some 50 milliseconds a step, or nothing
        wait = DataWait(torch.device("cuda"), workers=1, command=None)
        for _ in range(10):
            with wait.batch():
                time.sleep(0.02)
            if cycles:
                torch.cuda._sleep(cycles)
            wait.done()
        torch.cuda.synchronize()
        with wait.batch():
            pass
        wait.done()
        assert wait.share is not None
        shares.append(wait.share)
    assert shares[0] < 0.3 < shares[1]
