"""Trackers: the numbers of a run where they are shown, and a run that no tracker can end."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from videomae.engine.trackers import FOLDER, RunTracker, check_tracker
from videomae.errors import ConfigError


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / FOLDER))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_shows_every_number_of_every_step_and_those_of_parts_by_both_names(tmp_path: Path) -> None:
    tracker = RunTracker("auto", tmp_path, {}, 0)
    tracker.log({"step": 1, "loss": 0.5, "videos": ["a"], "skipped": True})
    tracker.log({"step": 2, "loss": 0.25, "evaluation": {"top1": 0.75, "name": "val"}})
    tracker.close()
    found = scalars(tmp_path)
    assert found["loss"] == [(1, 0.5), (2, 0.25)]
    assert found["evaluation/top1"] == [(2, 0.75)]
    assert set(found) == {"loss", "skipped", "evaluation/top1"}


def test_steps_that_a_resumed_run_does_again_are_shown_once(tmp_path: Path) -> None:
    tracker = RunTracker("tensorboard", tmp_path, {}, 0)
    for step in range(1, 6):
        tracker.log({"step": step, "loss": float(step)})
    tracker.close()
    tracker = RunTracker("tensorboard", tmp_path, {}, 3)
    for step in range(4, 7):
        tracker.log({"step": step, "loss": 10.0 * step})
    tracker.close()
    assert scalars(tmp_path)["loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]


def test_none_writes_nothing_and_a_tracker_that_fails_is_left_out_with_a_warning(tmp_path: Path) -> None:
    RunTracker("none", tmp_path, {}, 0).log({"step": 1, "loss": 0.5})
    assert not list(tmp_path.iterdir())
    (tmp_path / FOLDER).write_text("a file where the folder would be")
    with pytest.warns(UserWarning, match="the tracker has failed and is left out from here on"):
        tracker = RunTracker("tensorboard", tmp_path, {}, 0)
    tracker.log({"step": 1, "loss": 0.5})
    tracker.close()


def test_a_tracker_that_is_not_installed_is_refused_with_the_command_that_installs_it() -> None:
    if importlib.util.find_spec("trackio") is not None:
        pytest.skip("needs a machine without trackio")
    with pytest.raises(ConfigError, match=r"loop\.tracker is 'trackio', which is not installed: pip install trackio"):
        check_tracker("trackio")


def test_wandb_takes_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = RunTracker("wandb", tmp_path, {"loop": {"seed": 1}}, 0)
    tracker.log({"step": 1, "loss": 0.5})
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
