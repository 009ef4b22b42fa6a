"""What may change when a run is resumed, what may not and why, and the history that a run tells of itself."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from videomae.cli import main
from videomae.engine.runlog import MetricsLog
from videomae.errors import CheckpointError, RunError
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe, recipe_to_dict
from videomae.train.finetune import finetune
from videomae.train.pretrain import pretrain
from videomae.train.resume import MAY_CHANGE, MAY_NOT_CHANGE, resolve, rule_of, saved_recipe

Pretrain = Callable[..., PretrainRecipe]
Finetune = Callable[..., FinetuneRecipe]


@pytest.fixture
def stopped(pretrain_recipe: Pretrain, tmp_path: Path) -> Path:
    """A run of 8 steps as it was after step 6."""
    out = tmp_path / "run"
    pretrain(pretrain_recipe(), out=out)
    (out / "checkpoints" / "checkpoint-00000008.pt").unlink()
    shutil.rmtree(out / "model")
    return out


def edit_recipe(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = yaml.safe_load((out / "recipe.yaml").read_text())
    change(values)
    (out / "recipe.yaml").write_text(yaml.safe_dump(values))


def history(out: Path) -> list[dict[str, Any]]:
    """Return the starts of a run, without its ends."""
    return [one for one in MetricsLog.read(out / "history.jsonl") if one["event"] in ("started", "resumed")]


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in MetricsLog.read(out / "metrics.jsonl") if "loss" in record]


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    rows: list[str] = []
    for name, value in values.items():
        rows += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [f"{prefix}{name}"]
    return rows


def test_every_setting_of_every_recipe_has_a_rule_and_no_rule_is_without_a_setting() -> None:
    ruled = set()
    for kind in (PretrainRecipe, FinetuneRecipe):
        for name in leaves(recipe_to_dict(load_recipe(kind, "tiny", ["--data.train", "videos"]))):
            ruled.add(rule_of(name))
    assert ruled == MAY_CHANGE.keys() | MAY_NOT_CHANGE.keys()
    assert not MAY_CHANGE.keys() & MAY_NOT_CHANGE.keys()


def test_the_documentation_lists_the_settings_that_may_change_and_those_that_may_not() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8").split("## Resuming")[1]
    may, may_not = page.split("These may not")
    assert set(re.findall(r"`([a-z_.]+)`", may.split("|---|---|")[1])) == set(MAY_CHANGE)
    assert set(re.findall(r"`([a-z_.]+)`", may_not)) == set(MAY_NOT_CHANGE)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--optim.base_lr", "0.008"], "optim.base_lr: 0.016 -> 0.008 (changes the run from here on: later losses"),
        (["--optim.clip_grad", "1.0"], "optim.clip_grad: None -> 1.0 (changes the run from here on: later losses"),
        (
            ["--loop.max_bad_fraction", "0.2"],
            "loop.max_bad_fraction: 0.05 -> 0.2 (changes only when the run gives up",
        ),
        (["--loop.precision", "PRECISION"], "(changes the run from here on: later losses"),
        (["--loop.log_steps", "1"], "loop.log_steps: 2 -> 1 (changes nothing but speed)"),
    ],
)
def test_a_run_is_resumed_with_the_settings_that_errors_name_and_tells_so(
    arguments: list[str], line: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = saved_recipe(PretrainRecipe, stopped).loop.precision
    arguments = [one.replace("PRECISION", "fp32" if used == "bf16" else "bf16") for one in arguments]
    assert main(["pretrain", "--resume", "--out", str(stopped), *arguments]) == 0
    printed = capsys.readouterr().out
    assert f"resuming {stopped} after step 6" in printed
    assert line in printed
    name, value = arguments[0].removeprefix("--"), arguments[1]
    started, resumed = history(stopped)
    assert started["event"] == "started"
    assert (resumed["event"], resumed["step"]) == ("resumed", 6)
    assert [(one["name"], str(one["new"])) for one in resumed["changes"]] == [(name, value)]
    part, field = name.split(".")
    assert str(getattr(getattr(saved_recipe(PretrainRecipe, stopped), part), field)) == value
    assert len(losses(stopped)) == 8


def test_a_lower_learning_rate_on_resume_is_used(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "same")
    lower = ["--optim.base_lr", "1e-9", "--optim.min_lr", "0"]
    assert main(["pretrain", "--resume", "--out", str(tmp_path / "same")]) == 0
    assert main(["pretrain", "--resume", "--out", str(stopped), *lower]) == 0
    rates = [
        [record["lr"] for record in MetricsLog.read(run / "metrics.jsonl")] for run in (tmp_path / "same", stopped)
    ]
    assert rates[0][:6] == rates[1][:6]
    assert max(rates[1][6:]) < 1e-9 < min(rates[0][6:])


def test_moved_data_with_the_same_fingerprint_is_accepted_and_other_data_is_not(
    stopped: Path, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(labelled_folder, tmp_path / "moved")
    other = tmp_path / "other"
    shutil.copytree(labelled_folder / "left", other)
    before = (stopped / "recipe.yaml").read_text()
    assert main(["pretrain", "--resume", "--out", str(stopped), "--data.train", str(other)]) == 2
    assert "trained on other data than data.train holds now" in capsys.readouterr().err
    assert (stopped / "recipe.yaml").read_text() == before
    assert [one["event"] for one in history(stopped)] == ["started"]
    assert main(["pretrain", "--resume", "--out", str(stopped), "--data.train", str(tmp_path / "moved")]) == 0
    assert f"{tmp_path / 'moved'} (changes nothing: the videos are proved to be the same)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--loop.seed", "3"], "loop.seed: 0 -> 3, but every random draw follows from it"),
        (
            ["--schedule.steps", "16"],
            "schedule.steps: 8 -> 16, but the learning rate of every step, of those done too",
        ),
        (
            ["--optim.weight_decay", "0.1"],
            "optim.weight_decay: 0.05 -> 0.1, but the checkpoint holds the optimizer's state",
        ),
        (["--mask.ratio", "0.5"], "mask.ratio: 0.75 -> 0.5, but the loss would be another one"),
    ],
)
def test_a_change_that_is_refused_says_why_and_what_to_do_instead(
    arguments: list[str], reason: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--resume", "--out", str(stopped), *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert f"start a new run from this one's weights with --init {stopped}" in error
    assert [one["event"] for one in history(stopped)] == ["started"]


def test_a_recipe_of_an_older_version_takes_the_defaults_of_later_fields(
    pretrain_recipe: Pretrain, stopped: Path
) -> None:
    def age(values: dict[str, Any]) -> None:
        del values["loop"]["max_bad_fraction"], values["optim"]["clip_grad"], values["mask"]["decoder_kind"]
        values["loop"].update(device="auto", precision="auto")

    edit_recipe(stopped, age)
    (stopped / "history.jsonl").unlink()
    assert main(["pretrain", "--resume", "--out", str(stopped), "--loop.device", "cpu"]) == 0
    assert saved_recipe(PretrainRecipe, stopped) == resolve(pretrain_recipe(), stopped, resume=True)
    (resumed,) = history(stopped)
    assert {one["name"] for one in resumed["changes"]} == {"loop.device", "loop.precision"}
    assert {one["effect"] for one in resumed["changes"]} == {"the run did not say what it has used"}


def test_a_recipe_of_a_newer_version_is_an_error_that_names_its_fields_and_version(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_recipe(stopped, lambda values: values["optim"].update(momentum=0.9))
    lines = (stopped / "history.jsonl").read_text().replace('"videomae_version": "', '"videomae_version": "9')
    (stopped / "history.jsonl").write_text(lines)
    assert main(["pretrain", "--resume", "--out", str(stopped)]) == 2
    error = capsys.readouterr().err
    assert "written by videomae 9" in error
    assert "does not know (optim.momentum): resume with the version that wrote it" in error


def test_a_run_of_the_other_kind_is_an_error_that_names_the_command(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "--resume", "--out", str(stopped)]) == 2
    assert f"is no finetune run: resume it with videomae pretrain --resume --out {stopped}" in capsys.readouterr().err


def test_the_saved_recipe_names_the_device_and_precision_that_were_used(
    pretrain_recipe: Pretrain, finetune_recipe: Finetune, tmp_path: Path
) -> None:
    assert pretrain_recipe().loop.device == "auto"
    pretrain(pretrain_recipe("--schedule.steps", "1"), out=tmp_path / "pre")
    finetune(finetune_recipe("--schedule.steps", "1"), out=tmp_path / "fine")
    for kind, name in ((PretrainRecipe, "pre"), (FinetuneRecipe, "fine")):
        saved = yaml.safe_load((tmp_path / name / "recipe.yaml").read_text())
        assert saved["loop"]["device"] in ("cpu", "cuda", "mps"), kind
        assert saved["loop"]["precision"] in ("bf16", "fp32")
    assert saved["evaluation"]["precision"] == saved["loop"]["precision"]


def test_auto_on_resume_is_what_the_run_has_used_not_what_this_machine_prefers(
    pretrain_recipe: Pretrain, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = saved_recipe(PretrainRecipe, stopped).loop.precision
    for has_bf16 in (True, False):
        monkeypatch.setattr("videomae.engine.precision.has_bf16", lambda _, answer=has_bf16: answer)
        assert resolve(pretrain_recipe(), stopped, resume=True).loop.precision == used


def test_a_device_that_is_absent_is_an_error_that_names_the_flag_and_the_flag_is_obeyed(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("needs a machine without MPS")
    edit_recipe(stopped, lambda values: values["loop"].update(device="mps"))
    assert main(["pretrain", "--resume", "--out", str(stopped)]) == 2
    error = capsys.readouterr().err
    assert "has been computed on mps, which torch does not find here: give --loop.device cpu" in error
    assert main(["pretrain", "--resume", "--out", str(stopped), "--loop.device", "cpu"]) == 0
    assert history(stopped)[-1]["changes"][0]["name"] == "loop.device"


def test_a_folder_without_a_recipe_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no recipe\.yaml: there is no run to resume; leave out --resume"):
        saved_recipe(PretrainRecipe, tmp_path)


def test_a_run_that_is_resumed_unchanged_says_nothing_of_changes(stopped: Path) -> None:
    assert main(["pretrain", "--resume", "--out", str(stopped)]) == 0
    assert history(stopped)[-1]["changes"] == []


def test_a_change_of_the_evaluation_is_named_as_such(finetune_recipe: Finetune, tmp_path: Path) -> None:
    recipe = finetune_recipe("--schedule.steps", "2")
    finetune(recipe, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    evaluation = dataclasses.replace(recipe.evaluation, batch_size=3)
    finetune(dataclasses.replace(recipe, evaluation=evaluation), out=tmp_path / "run", resume=True)
    (change,) = history(tmp_path / "run")[-1]["changes"]
    assert change["effect"] == "changes only the evaluation after the last step"


def test_a_refused_recipe_leaves_the_run_as_it_was(pretrain_recipe: Pretrain, stopped: Path) -> None:
    before = {path.name: path.read_bytes() for path in stopped.iterdir() if path.is_file()}
    with pytest.raises(CheckpointError, match=r"loop\.seed: 0 -> 5"):
        pretrain(pretrain_recipe("--loop.seed", "5"), out=stopped, resume=True)
    assert {path.name: path.read_bytes() for path in stopped.iterdir() if path.is_file()} == before
