"""What the command prints beside results: help that waits for nothing, warnings of one line."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from test_cli_options import OPTIONS
from videomae.cli import SUBCOMMANDS, Subcommand, main

HELP = [[], *([name] for name in OPTIONS), ["weights"], ["weights", "inspect"], ["weights", "convert"]]


@pytest.mark.parametrize("arguments", HELP, ids=lambda one: " ".join(one) or "videomae")
def test_help_imports_nothing_that_is_slow(arguments: list[str]) -> None:
    slow = ("torch", "av", "transformers", "matplotlib", "PIL")
    program = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "from videomae.cli import main\n"
        "try:\n"
        f"    main({[*arguments, '--help']!r})\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "seconds = time.perf_counter() - start\n"
        f"print([name for name in {slow!r} if name in sys.modules], f'{{seconds:.2f}} s', file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    print(result.stderr)  # the time is for people who look: pytest -s
    assert "usage: videomae" in result.stdout
    assert result.stderr.startswith("[]"), result.stderr


def test_warnings_are_one_line_each_and_come_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(arguments: list[str]) -> int:
        for number in (1, 2, 1):
            warnings.warn(f"clip {number} is short:\n  its last frame is repeated", UserWarning, stacklevel=2)
        warnings.warn("another library's", FutureWarning, stacklevel=1)
        return 0

    before = warnings.showwarning
    monkeypatch.setitem(SUBCOMMANDS, "predict", Subcommand("", noisy))
    assert main(["predict"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: clip 1 is short: its last frame is repeated",
        "warning: clip 2 is short: its last frame is repeated",
        "warning: another library's",
    ]
    assert warnings.showwarning is before
