from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.ablation import DECISIONS, main, with_changes
from benchmarks.contenders import LOSS_TOLERANCE, Setting, pretraining_task

from benchmarks import attention
from videomae.train import decoding


@pytest.mark.parametrize("undone", DECISIONS)
def test_undoing_a_decision_is_met_by_the_step_and_leaves_the_loss(
    undone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "VALUES", 1)  # so small a model is decoded at once otherwise
    met: set[str] = set()
    watched = tuple(
        (owner, name, noting(value, name, met) if callable(value) else value)
        for owner, name, value in DECISIONS[undone]
    )
    setting = Setting(torch.device("cpu"), torch.bfloat16)
    as_it_is, changed = (
        with_changes(pretraining_task("tiny", setting, batch=2).contenders[0].run, changes)()
        for changes in ((), watched)
    )
    assert changed.item() == pytest.approx(as_it_is.item(), rel=LOSS_TOLERANCE)
    assert met == {name for _, name, value in DECISIONS[undone] if callable(value)}


def noting(function: Callable[..., Any], name: str, met: set[str]) -> Callable[..., Any]:
    """Return the function, which now puts a name into a set when it is called."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        met.add(name)
        return function(*args, **kwargs)

    return noted


def test_the_ablation_prints_a_row_for_each_decision_and_one_for_transformers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--size", "tiny", "--batch", "1", "--rounds", "1"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [*DECISIONS, "transformers"]


@pytest.mark.slow
def test_rows_are_chosen_by_a_part_of_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--size", "tiny", "--batch", "1", "--rounds", "1", "--only", "one projection"])
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert row.startswith("| one projection instead of three | tiny")
    with pytest.raises(SystemExit):
        main(["--only", "nobody"])
    assert "--only is 'nobody', which no row contains: nothing undone, " in capsys.readouterr().err


def test_the_attention_table_times_both_kernels(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SHAPES", ((1, 2, 8, 4),))
    attention.main(["--threads", "1"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| bfloat16", "| float32"]
    assert all(float(cell) > 0 for row in rows for cell in row.strip("| ").split(" | ")[2:])
