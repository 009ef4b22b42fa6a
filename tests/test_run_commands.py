"""`videomae runs list` and `videomae runs compare` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from small_runs import SMALL
from videomae.cli import main


@pytest.fixture(scope="module")
def runs(labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of the command line."""
    folder = tmp_path_factory.mktemp("typed")
    for name, steps in (("a", "2"), ("b", "3")):
        words = ["--config", "tiny", *SMALL, "--schedule.steps", steps, "--monitor.enabled", "false"]
        assert main(["pretrain", str(labelled_folder), "--out", str(folder / name), *words]) == 0
    return folder


def test_the_list_is_a_table_of_runs_or_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(runs)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == "run kind state started ended steps loss best top-1 clips/s recipe".split()
    assert [row.split()[:3] for row in rows] == [[str(runs / name), "pretrain", "finished"] for name in "ab"]
    assert all(row.endswith(" tiny") for row in rows)
    assert main(["runs", "list", str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [one["steps"] for one in found] == [2, 3]
    assert found[0]["state"] == "finished"
    assert found[0]["problems"] == []


def test_without_a_folder_the_runs_below_the_current_one_are_listed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    assert main(["runs", "list"]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[1:]] == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "list"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "no runs below .: training writes one to its --out folder\n")


def test_a_comparison_prints_what_differs_and_writes_a_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["runs", "compare", str(runs / "a"), str(runs / "b"), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["schedule.steps", "2", "3"] in rows
    assert ["steps", "2", "3"] in rows
    assert "versions and machines are the same" in printed
    assert printed.endswith(f"report: {page}\n")
    assert page.read_text(encoding="utf-8").count("<svg") == 0
    assert "Training runs a and b" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "1 run is given to compare: give two or more run folders"),
        (["a", "a"], "a is given twice: give different runs"),
        (["a", "none"], "none does not exist: check the path"),
        (["a", "."], "is not a run of this package: name one of the runs below it: "),
        (["a", "b", "--out", "page.txt"], "output is 'page.txt'; its name must end with .html"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_writes_nothing(
    names: list[str], message: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(runs.iterdir())
    assert main(["runs", "compare", *names]) == 2
    assert message in capsys.readouterr().err
    assert sorted(runs.iterdir()) == before


def test_another_part_of_runs_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show"]) == 2
    assert "videomae runs needs list or compare, got show" in capsys.readouterr().err
