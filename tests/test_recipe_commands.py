from __future__ import annotations

import subprocess
import sys

import pytest

from videomae.cli import main


def test_the_list_names_every_recipe_with_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list", "--kind", "pretrain"]) == 0
    printed = capsys.readouterr().out
    for name in ("laptop", "small-data", "one-gpu", "kinetics400_base", "ssv2_base", "hmdb51_base", "v2_giant"):
        assert f"\n{name} " in printed
    assert "finetune" not in printed.partition("\n")[2].partition("videomae recipes show")[0]


def test_show_prints_the_files_of_a_name_which_training_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "ucf101_base"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("# What:") == 2, "pre-training and fine-tuning"
    assert "  base_lr: 3.0e-4\n" in printed


def test_explain_tells_the_origin_of_values_the_file_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "tiny", "--kind", "finetune", "--explain"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "default" in rows["optim.eps"]
    assert "recipe" in rows["model.preset"]


def test_an_unknown_recipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "kinetics"]) == 2
    assert capsys.readouterr().err.startswith("videomae: error: there is no packaged recipe 'kinetics': use one of ")


def test_output_that_nobody_reads_on_ends_a_command_quietly() -> None:
    command = [sys.executable, "-m", "videomae", "recipes", "show", "v2_giant", "--explain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (1, 141), "Rich's way of ending, or that of the signal"
