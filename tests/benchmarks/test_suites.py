import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import benchmarks.contenders
import pytest
import torch
from benchmarks.contenders import (
    SIZES,
    Contender,
    Setting,
    Task,
    classification_task,
    finetuning_task,
    pretraining_task,
    transformers_model,
)
from benchmarks.measure import Times, peak_memory, ratio, time_in_turn
from benchmarks.report import rows_of
from benchmarks.run import main
from benchmarks.shares import KINDS, REST, kind_of, share_lines, shares_of

from videomae.weights.layouts import to_transformers

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


BF16 = Setting(CPU, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "tasks"),
    [
        ("pretrain", ["pretrain", "pretrain, half decoded"]),
        ("finetune", ["finetune"]),
        ("inference", ["classify"]),
        ("memory", ["pretrain"]),
    ],
)
def test_the_command_measures_both_sides_and_writes_what_it_measured(
    suite: str, tasks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--suite", suite, "--sizes", "tiny", "--batch", "2", "--rounds", "3", "--compile", "none"]
    main([*given, "--precision", "bf16", "--out", str(tmp_path)])
    (as_json,) = tmp_path.glob(f"*-cpu-bf16-{suite}-tiny.json")
    found = json.loads(as_json.read_text())
    assert found["torch"] == torch.__version__
    repeats = f"python -m benchmarks.run --suite {suite} --device cpu --sizes tiny --batch 2 --precision bf16 "
    assert found["command"].startswith(repeats + "--compile none --rounds 3 --threads ")
    assert str(tmp_path) not in found["command"]
    assert {"cpu", "cpu_flags", "cores", "threads", "transformers", "date"} <= found.keys()
    assert list(dict.fromkeys(row["task"] for row in found["rows"])) == tasks
    for row in found["rows"]:
        assert row["is_ours"] == row["contender"].startswith("ours")
        assert len(row["times"]["wall"]) == 3
        assert min(row["times"]["wall"]) > 0
        assert row["clips_per_second"] == pytest.approx(2 / statistics.median(row["times"]["wall"]))
        operations = row["teraflops_per_second"] / row["share_of_products"]
        assert operations == pytest.approx(found["matrix_products_tflops"], rel=0.02, abs=6e-4)
        (theirs,) = (
            one for one in found["rows"] if one["task"] == row["task"] and one["contender"] == "transformers"
        )
        pairs = zip(row["times"]["processor"], theirs["times"]["processor"], strict=True)
        expected = statistics.median(b / a for a, b in pairs)
        assert row["faster"] is None if row is theirs else row["faster"]["median"] == pytest.approx(expected)
    as_markdown = as_json.with_suffix(".md").read_text()
    printed = capsys.readouterr().out
    lines = [line for line in as_markdown.splitlines() if "| tiny |" in line]
    assert len(lines) == len(found["rows"])
    assert all(line in printed for line in lines)


@pytest.mark.slow
def test_the_command_measures_several_suites_also_where_no_video_can_be_decoded(tmp_path: Path) -> None:
    arguments = [
        "--suite",
        "pretrain,inference",
        "--sizes",
        "tiny",
        "--compile",
        "none",
        "--batch",
        "1",
        "--rounds",
        "1",
        "--out",
        str(tmp_path),
    ]
    program = f"import sys; sys.modules['av'] = None; from benchmarks.run import main; main({arguments!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| pretrain | tiny |" in done.stdout
    assert "| classify | tiny |" in done.stdout
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.slow
def test_the_program_for_a_gpu_measures_every_row_in_small_and_keeps_them(tmp_path: Path) -> None:
    program = "import sys; sys.modules['av'] = None; from benchmarks.cuda import main; main(sys.argv[1:])"
    given = ["--device", "cpu", "--sizes", "tiny", "--variants", "none", "--steps", "1"]
    given += ["--out", str(tmp_path / "rows.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", program, *given],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row for row in rows if "error" in row or "skipped" in row] == []
    by_name = {row["name"]: row for row in rows}
    assert by_name["pretrain tiny none"]["clips_per_s"] > 0
    assert by_name["pretrain tiny none: numerics"]["gradient_difference"] < 0.05
    assert by_name["loss curves"]["largest_difference"] < 0.01
    assert (tmp_path / "rows.png").stat().st_size > 5000


@pytest.mark.parametrize("task", [pretraining_task, finetuning_task, classification_task])
def test_sides_that_compute_different_things_are_not_timed(
    task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = ("decoder.head.weight", "classifier.weight")
        return {key: 1.1 * value if key in last else value for key, value in to_transformers(state).items()}

    monkeypatch.setattr(benchmarks.contenders, "to_transformers", spoiled)
    with pytest.raises(AssertionError, match=r"of the two sides differ by .* they do not compute the same thing"):
        task("tiny", BF16, batch=2)


def test_transformers_attends_by_sdpa_in_both_stacks() -> None:
    theirs = transformers_model("VideoMAEForPreTraining", SIZES["tiny"])
    stacks = (theirs.videomae.encoder.layer, theirs.decoder.decoder_layers)
    assert {block.attention.attention.config._attn_implementation for stack in stacks for block in stack} == {"sdpa"}


@pytest.mark.parametrize("task", [pretraining_task, finetuning_task])
def test_both_sides_of_a_training_step_learn(task: Callable[..., Task]) -> None:
    for side in task("tiny", BF16, batch=2).contenders:
        losses = [side.run().item() for _ in range(8)]
        assert losses[-1] < losses[0]


def test_ours_is_compared_with_the_fastest_of_the_others() -> None:
    names = ("ours", "transformers", "transformers, blocks compiled")
    sides = tuple(Contender(name, name == "ours", lambda: torch.zeros(()), 10**12) for name in names)
    times = [Times(wall=(one, one), processor=(2 * one, 2 * one)) for one in (1.0, 3.0, 2.0)]
    rows = rows_of(Task("classify", 4, sides, 0.0), "S", times, [1, 2, 3], [0.0] * 3, products=8e12, device=CPU)
    assert [row.faster and row.faster.median for row in rows] == [2.0, None, None]
    assert (rows[0].clips_per_second, rows[0].teraflops_per_second, rows[0].share_of_products) == (4.0, 4.0, 0.5)


def test_rounds_are_in_turn_and_the_first_to_go_changes() -> None:
    calls: list[str] = []
    found = time_in_turn(*(lambda name=name: calls.append(name) for name in "abc"), warmup=1, rounds=2, device=CPU)
    assert calls == [*"abc", *"cba", *"abc"]
    assert [len(one.wall) for one in found] == [len(one.processor) for one in found] == [2, 2, 2]


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    found = ratio((1.0, 2.0, 4.0), (2.0, 6.0, 4.0))
    assert (found.median, found.lowest, found.highest) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "products with weights"),
        ("aten::bmm", "attention: its products, or torch's fused kernel"),
        (
            "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
            "attention: its products, or torch's fused kernel",
        ),
        ("aten::_softmax_backward_data", "attention: softmax and its gradient"),
        ("aten::add", "additions and scalings"),
        ("aten::gelu_backward", "GELU and its gradient"),
        ("aten::index", REST),
    ],
)
def test_operators_are_told_apart(operator: str, kind: str) -> None:
    assert kind_of(operator) == kind


def test_the_shares_of_a_step_are_its_time() -> None:
    task = pretraining_task("tiny", BF16, batch=2)
    run = task.contenders[0].run
    run()
    found = shares_of(run)
    assert set(found) == {*KINDS, REST}
    for kind in (*KINDS, REST):
        assert found[kind] > 0, kind
    (times,) = time_in_turn(run, warmup=1, rounds=5, device=CPU)
    assert sum(found.values()) < 20 * statistics.median(times.wall)  # the profiler's own cost is large in small steps
    lines = share_lines(task, "tiny")
    assert lines[0] == "tiny pretrain, batch 2:"
    assert lines[2].count("ours, ms") == lines[2].count("transformers, ms") == 1
    assert len(lines) == 4 + len(KINDS) + 2


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
        (["--sizes", "S,XL"], "unknown size 'XL': choose of tiny,laptop,S,B,L,H,g"),
        (["--compile", "all"], "unknown part to compile 'all': choose of none,blocks,whole"),
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
def test_compiled_sides_are_timed_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced, but not turned into C++, which takes a minute for transformers' models; test_compile_export does that to
    # ours.
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    main(["--sizes", "tiny", "--batch", "2", "--rounds", "2", "--compile", "none,blocks", "--out", str(tmp_path)])
    (as_json,) = tmp_path.glob("*-tiny.json")
    names = [row["contender"] for row in json.loads(as_json.read_text())["rows"]]
    assert names[:4] == ["ours", "transformers", "ours, blocks compiled", "transformers, blocks compiled"]
