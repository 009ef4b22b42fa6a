"""The benchmark of reading runs, and what it compares are the same frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from benchmarks.decode import main
from benchmarks.film import write_clip
from benchmarks.report import installed_version


@pytest.mark.slow
def test_the_command_reads_the_same_frames_with_all_readers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "short.mp4", seed=1, num_frames=40)
    write_clip(tmp_path / "videos" / "too_short.mp4", seed=1, num_frames=16)
    arguments = ["--clips", "1", "--seconds", "3", "--hours", "0.005", "--rounds", "2", "--out", str(tmp_path)]
    main([*arguments, "--videos", str(tmp_path / "videos")])
    (as_json,) = tmp_path.glob("*-decode.json")
    found = json.loads(as_json.read_text())
    command = "python -m benchmarks.decode --clips 1 --rounds 2 --seconds 3 --hours 0.005 --videos videos --count 24"
    assert found["command"] == command
    assert {row["videos"] for row in found["rows"]} == {"original", "long", "prepared", "real", "real, prepared"}
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
