"""What the folders of real runs say: finished, stopped, failed, running, killed early, damaged, of older versions."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from small_runs import SMALL
from videomae.engine.distributed import Ranks
from videomae.engine.interrupt import StopRequested
from videomae.engine.runlog import MetricsLog, RunFolder, owned_run
from videomae.errors import RunError
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe
from videomae.report.comparison_page import compare_runs, comparison_sections, write_comparison_page
from videomae.report.figures import Curve
from videomae.report.page import Chart, Table
from videomae.report.runs import RunSummary, find_runs, read_run, summarize, summary_table
from videomae.report.svg import Svg
from videomae.train.finetune import finetune
from videomae.train.pretrain import pretrain


@pytest.fixture(scope="module")
def runs(labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pre-training run that was stopped and resumed, another of other settings, and a fine-tuning."""
    folder = tmp_path_factory.mktemp("runs")

    def recipe(kind: type[PretrainRecipe] | type[FinetuneRecipe], *words: str) -> object:
        return load_recipe(kind, "tiny", ["--data.train", str(labelled_folder), *SMALL, *words])

    whole = folder / "pre" / "a"
    pretrain(recipe(PretrainRecipe, "--schedule.steps", "4"), out=whole, recipe_name="tiny")
    (whole / "checkpoints" / "checkpoint-00000004.pt").unlink()
    shutil.rmtree(whole / "model")
    pretrain(recipe(PretrainRecipe, "--schedule.steps", "4"), out=whole, resume=True)
    words = ("--schedule.steps", "3", "--optim.base_lr", "0.001", "--monitor.enabled", "false")
    pretrain(recipe(PretrainRecipe, *words), out=folder / "pre" / "b")
    words = ("--schedule.steps", "2", "--validation.every_steps", "1", "--data.val_fraction", "0.34")
    finetune(recipe(FinetuneRecipe, *words), out=folder / "fine")
    return folder


def summary(path: Path) -> RunSummary:
    return summarize(read_run(path))


def test_runs_are_found_below_a_folder_and_nothing_else_is(runs: Path, tmp_path: Path) -> None:
    assert find_runs(runs) == [runs / "fine", runs / "pre" / "a", runs / "pre" / "b"]
    assert find_runs(runs / "fine") == [runs / "fine"]
    assert find_runs(tmp_path) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"kind": "another tool"}')
    shutil.copytree(runs / "fine", tmp_path / ".hidden")
    assert find_runs(tmp_path) == []
    with pytest.raises(RunError, match=r"gone does not exist: give a folder with runs below it"):
        find_runs(tmp_path / "gone")


def test_a_finished_run_is_told_with_its_last_and_best_figures(runs: Path) -> None:
    one = summary(runs / "pre" / "a")
    losses = [record["loss"] for record in MetricsLog.read(runs / "pre" / "a" / "metrics.jsonl") if "loss" in record]
    assert (one.kind, one.recipe, one.state, one.steps, one.total_steps) == ("pretrain", "tiny", "finished", 4, 4)
    assert (one.last_loss, one.best_loss, one.resumes) == (losses[-1], min(losses), 1)
    assert one.held_out_loss is not None
    assert one.started is not None
    assert one.ended is not None
    assert one.started <= one.ended
    tuned = summary(runs / "fine")
    metrics = json.loads((runs / "fine" / "evaluation.json").read_text())["metrics"]
    assert (tuned.kind, tuned.top1, tuned.score) == ("finetune", metrics["top1"], metrics["top1"])
    assert tuned.clips_per_second is not None
    assert tuned.clips_per_second > 0


def copied(runs: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(runs / "fine", run)
    return run


def test_a_run_is_running_while_a_process_owns_it_and_stopped_after_a_kill(runs: Path, tmp_path: Path) -> None:
    run = copied(runs, tmp_path)
    shutil.rmtree(run / "model")
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text(lines[0])  # as a kill leaves it
    with owned_run(run, Ranks()):
        assert (summary(run).state, summary(run).ended) == ("running", None)
    stopped = summary(run)
    assert stopped.state == "stopped"
    assert stopped.ended is not None
    assert stopped.steps == 2
    (row,) = summary_table([stopped])[1]
    assert "2/2" in row


def test_the_best_validation_so_far_is_the_accuracy_of_a_run_that_is_not_evaluated(
    runs: Path, tmp_path: Path
) -> None:
    run = copied(runs, tmp_path)
    records = [one for one in MetricsLog.read(run / "metrics.jsonl") if "evaluation" not in one]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    best = [one for one in records if one.get("is_best")][-1]
    assert summary(run).top1 == best["validation"]["top1"]


@pytest.mark.parametrize(
    ("error", "state"), [(StopRequested, "stopped"), (RunError("the disk is\nfull"), "failed")], ids=["stop", "fail"]
)
def test_how_a_run_ended_is_kept_in_its_history(
    error: object, state: str, labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videomae.train.session import Session

    raised = StopRequested(signal.SIGTERM) if error is StopRequested else error
    log_step = Session.log_step

    def second_step(self: Session, *arguments: object, **options: object) -> object:
        result = log_step(self, *arguments, **options)  # type: ignore[arg-type]
        if self.step == 2:
            raise raised  # type: ignore[misc]
        return result

    monkeypatch.setattr(Session, "log_step", second_step)
    words = ["--data.train", str(labelled_folder), "--schedule.steps", "9", "--monitor.enabled", "false"]
    recipe = load_recipe(PretrainRecipe, "tiny", [*words, *SMALL])
    with pytest.raises(type(raised)):  # type: ignore[arg-type]
        pretrain(recipe, out=tmp_path / "run")
    one = summary(tmp_path / "run")
    assert (one.state, one.steps, one.total_steps) == (state, 2, 9)
    assert one.error == ("the disk is full" if state == "failed" else None)
    assert one.clips_per_second is not None


def test_a_run_without_a_step_and_a_damaged_one_are_listed_with_what_is_wrong(runs: Path, tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "new", overwrite=False, resume=False)
    new = summary(tmp_path / "new")
    assert (new.state, new.kind, new.steps, new.last_loss, new.problems) == ("stopped", None, 0, None, [])
    run = copied(runs, tmp_path)
    (run / "metrics.jsonl").write_text("{}\nno json\n")
    (run / "recipe.yaml").write_text("[")
    damaged = summary(run)
    assert damaged.last_loss is None
    assert any("metrics.jsonl line 2 is not a JSON object" in problem for problem in damaged.problems)
    assert any("recipe.yaml cannot be read" in problem for problem in damaged.problems)
    assert summary_table([damaged])[1][0][2] == "finished (damaged)"


def test_a_run_of_an_older_version_is_told_as_far_as_it_is_known(runs: Path, tmp_path: Path) -> None:
    run = copied(runs, tmp_path)
    (run / "environment.json").unlink()
    (run / "history.jsonl").unlink()
    old = summary(run)
    assert (old.state, old.kind, old.steps, old.started, old.recipe) == ("finished", "finetune", 2, None, None)


def test_a_folder_that_is_no_run_is_named_with_the_runs_below_it(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"pre is not a run of this package: name one .* {runs}/pre/a, {runs}/pre/b"):
        read_run(runs / "pre")
    with pytest.raises(RunError, match="is not a run of this package: give a run's --out folder"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="gone does not exist: check the path"):
        read_run(tmp_path / "gone")


# ---- side by side --------------------------------------------------------------------------------------------------


def test_what_differs_is_told_and_what_is_the_same_is_not(runs: Path) -> None:
    comparison = compare_runs([runs / "pre" / "a", runs / "pre" / "b"])
    assert comparison.names == ("a", "b")
    settings = {row[0]: row[1:] for row in comparison.settings}
    assert settings.keys() == {"schedule.steps", "optim.base_lr", "monitor.enabled"}
    assert settings["schedule.steps"] == ("4", "3")
    assert comparison.made_with == []
    figures = {row[0]: row[1:] for row in comparison.figures()}
    assert figures["steps"] == ("4", "3")
    assert figures["held-out loss"][1] == "-"
    assert figures["resumed"] == ("1", "-")
    assert "top-1 accuracy" not in figures


def test_versions_commits_and_machines_that_differ_are_told(runs: Path, tmp_path: Path) -> None:
    run = copied(runs, tmp_path)
    (start,) = json.loads((run / "environment.json").read_text())["starts"]
    start["versions"]["torch"], start["host"] = "2.9.9", "elsewhere"
    start["git"]["source"] = {"commit": "ab" * 20, "dirty": True}
    (run / "environment.json").write_text(json.dumps({"starts": [start]}))
    rows = {row[0]: row[1:] for row in compare_runs([runs / "fine", run]).made_with}
    assert rows.keys() == {"torch", "host", "commit of videomae"}
    assert rows["torch"][1] == "2.9.9"
    assert rows["commit of videomae"][1] == "abababababab, with changes"
    (run / "environment.json").unlink()
    rows = {row[0]: row[1:] for row in compare_runs([runs / "fine", run]).made_with}
    assert rows["processor"][1] == "not recorded"
    assert "torch" not in rows, "its history says the version"


@pytest.mark.slow
def test_the_page_draws_what_each_run_has_over_the_same_axes_and_fetches_nothing(runs: Path, tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "new", overwrite=False, resume=False)
    paths = [runs / "pre" / "a", runs / "pre" / "b", runs / "fine", tmp_path / "new"]
    comparison = compare_runs(paths)
    sections = {one.title: one.blocks for one in comparison_sections(comparison)}
    assert list(sections) == ["Figures", "Curves", "What differs"]
    drawn = [block.svg.alt for block in sections["Curves"] if isinstance(block, Chart)]
    assert [alt.split(" by step")[0] for alt in drawn] == [
        "loss of pretrain",
        "loss of finetune",
        "held-out loss",
        "validation top-1 accuracy",
        "learning rate",
    ]
    assert "a from " in drawn[0]
    assert "; b from " in drawn[0]
    assert "Without a step so far, and without curves: new." in [
        getattr(one, "text", "") for one in sections["Curves"]
    ]
    tables = [block for block in sections["What differs"] if isinstance(block, Table)]
    assert all(len(table.columns) == 5 for table in tables)
    write_comparison_page(tmp_path / "page.html", comparison)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_curves_of_a_resumed_run_are_one_line_over_all_its_steps(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import videomae.report.comparison_page as page

    drawn: dict[str, Sequence[Curve]] = {}

    def kept(curves: Sequence[Curve], *, y_label: str) -> Svg:
        drawn[y_label] = curves
        return Svg("", "", "")

    monkeypatch.setattr(page, "loss_curves", kept)
    comparison_sections(compare_runs([runs / "pre" / "a", runs / "pre" / "b"]))
    first, second = drawn["training loss"]
    assert list(first.steps) == [1, 2, 3, 4]
    assert list(second.steps) == [1, 2, 3]
    (only,) = drawn["held-out loss"]
    assert only.name == "a"
