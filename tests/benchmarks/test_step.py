import functools
import json
import statistics
import subprocess
import sys
from pathlib import Path

import benchmarks.contenders
import pytest
import torch
from benchmarks.contenders import SIZES, classification_task, pretraining_task, transformers_model
from benchmarks.flops import pretraining_flops
from benchmarks.measure import peak_memory, ratio, time_in_turn
from benchmarks.step import main

from videomae.weights.layouts import to_transformers

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_command_measures_both_sides_and_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--sizes", "tiny", "--batch", "2", "--rounds", "3", "--out", str(tmp_path)])
    (as_json,) = tmp_path.glob("*-cpu-tiny.json")
    found = json.loads(as_json.read_text())
    assert found["torch"] == torch.__version__
    repeats = "python -m benchmarks.step --device cpu --sizes tiny --tasks pretrain,classify --batch 2 --rounds 3 "
    assert found["command"].startswith(repeats + "--threads ")
    assert str(tmp_path) not in found["command"]
    assert {"cpu", "cpu_flags", "cores", "threads", "transformers", "date"} <= found.keys()
    assert [row["task"] for row in found["rows"]] == ["pretrain", "classify"]
    for row in found["rows"]:
        times = {name: row[name]["times"]["wall"] for name in ("ours", "theirs")}
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in times.values())
        ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["theirs"], strict=True)]
        assert row["wall_ratio"] == {
            "median": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
        }
        median = statistics.median(times["ours"])
        assert row["ours"]["clips_per_second"] == pytest.approx(2 / median)
    flops = pretraining_flops(SIZES["tiny"].replace(use_mean_pooling=False), variant="exact").step
    ours = found["rows"][0]["ours"]
    assert ours["teraflops_per_second"] == pytest.approx(ours["clips_per_second"] * flops / 1e12)
    as_markdown = as_json.with_suffix(".md").read_text()
    printed = capsys.readouterr().out
    for line in (line for line in as_markdown.splitlines() if line.startswith("| tiny")):
        assert line in printed


@pytest.mark.slow
def test_the_command_runs_where_no_video_can_be_decoded(tmp_path: Path) -> None:
    arguments = ["--sizes", "tiny", "--tasks", "pretrain", "--batch", "1", "--rounds", "1", "--out", str(tmp_path)]
    program = f"import sys; sys.modules['av'] = None; from benchmarks.step import main; main({arguments!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| tiny | pretrain |" in done.stdout


@pytest.mark.parametrize("task", [pretraining_task, classification_task])
def test_sides_that_compute_different_things_are_not_timed(task: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = ("decoder.head.weight", "classifier.weight")
        return {key: 1.1 * value if key in last else value for key, value in to_transformers(state).items()}

    monkeypatch.setattr(benchmarks.contenders, "to_transformers", spoiled)
    with pytest.raises(AssertionError, match=r"of the two sides differ by .* they do not compute the same thing"):
        task("tiny", batch=2, device=CPU)  # type: ignore[operator]


def test_transformers_attends_by_sdpa_in_both_stacks() -> None:
    theirs = transformers_model("VideoMAEForPreTraining", SIZES["tiny"])
    stacks = (theirs.videomae.encoder.layer, theirs.decoder.decoder_layers)
    assert {block.attention.attention.config._attn_implementation for stack in stacks for block in stack} == {"sdpa"}


def test_both_sides_of_a_training_step_learn() -> None:
    task = pretraining_task("tiny", batch=2, device=CPU)
    for side in (task.ours, task.theirs):
        losses = [side.run().item() for _ in range(8)]
        assert losses[-1] < losses[0]


def test_rounds_are_in_turn_and_the_first_to_go_changes() -> None:
    calls: list[str] = []
    ours, theirs = time_in_turn(
        lambda: calls.append("ours"), lambda: calls.append("theirs"), warmup=1, rounds=3, device=CPU
    )
    assert calls == ["ours", "theirs", "theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert len(ours.wall) == len(ours.processor) == len(theirs.wall) == len(theirs.processor) == 3


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    found = ratio((1.0, 2.0, 4.0), (2.0, 6.0, 4.0))
    assert (found.median, found.lowest, found.highest) == (2.0, 1.0, 3.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_peak_memory_is_what_a_call_holds_at_once() -> None:
    size = 200 * 2**20

    def hold_and_free() -> None:
        for _ in range(2):
            torch.ones(size, dtype=torch.uint8)

    found = peak_memory(hold_and_free, CPU)
    assert found is not None
    assert 0.9 * size < found < 1.3 * size


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--sizes", "S,XL"], "unknown size 'XL': choose of tiny,S,B,L,H,g"),
        (["--tasks", "sleep"], "unknown task 'sleep': choose of pretrain,classify"),
        (["--rounds", "0"], "'0' is no whole number of at least 1"),
    ],
)
def test_wrong_options_are_refused_with_the_fix(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_sides_agree_and_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced, but not turned into C++, which takes a minute for transformers' models; test_compile_export does that to
    # ours.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    main(["--sizes", "tiny", "--batch", "2", "--rounds", "2", "--compile", "--out", str(tmp_path)])
    (as_json,) = tmp_path.glob("*-cpu-tiny-compiled.json")
    assert all(row["compiled"] for row in json.loads(as_json.read_text())["rows"])
