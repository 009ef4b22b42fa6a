"""The benchmark of reading runs, and what it compares are the same frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from benchmarks.decode import main
from benchmarks.report import installed_version


@pytest.mark.slow
def test_the_command_reads_the_same_frames_with_all_readers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--clips", "1", "--seconds", "3", "--hours", "0.005", "--rounds", "2", "--out", str(tmp_path)])
    (as_json,) = tmp_path.glob("*-decode.json")
    found = json.loads(as_json.read_text())
    assert found["command"] == "python -m benchmarks.decode --clips 1 --rounds 2 --seconds 3 --hours 0.005"
    assert {row["videos"] for row in found["rows"]} == {"original", "long", "prepared"}
    assert {"ours", "ours, first time", "PyAV"} <= {row["reader"] for row in found["rows"]}
    printed = capsys.readouterr().out
    for row in found["rows"]:
        assert len(row["times"]["processor"]) == 2
        if row["reader"] in ("ours", "ours, first time", "PyAV"):
            assert row["difference"] < 3
        assert f"| {row['videos']} | {row['reader']} |" in printed


def test_a_package_that_is_not_installed_is_a_fact_and_no_failure() -> None:
    assert installed_version("numpy") == numpy.__version__
    assert installed_version("no-such-package") == "not installed"
