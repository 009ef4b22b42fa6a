"""The numeric tests are run under other instruction sets: the limits take effect, and a failure is named."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TWO_TESTS = """
import torch

def test_the_limit_took_effect():
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"

def test_that_fails():
    assert False
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ".ci/instruction_sets.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch has no other sets to choose of here")
def test_a_run_under_an_older_set_counts_its_tests_and_fails_with_them(tmp_path: Path) -> None:
    path = tmp_path / "test_two.py"
    path.write_text(TWO_TESTS, encoding="utf-8")
    done = run("default", "--tests", str(path))
    assert done.returncode == 1, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("default ")]
    assert row[:5] == ["default", "DEFAULT", "1", "1", "0"]
    last = done.stdout.splitlines()[-1]  # with the folders between the checkout and the file, if one holds both
    assert last.startswith("failed under default: ")
    assert last.endswith("test_two::test_that_fails")


def test_an_unknown_set_is_refused_and_the_known_ones_named() -> None:
    done = run("avx3")
    assert done.returncode == 2
    assert "unknown set avx3: choose of default, avx2, avx512, native" in done.stderr
