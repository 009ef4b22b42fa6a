"""Outputs are checked before anything is computed for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.inference.files import check_output


def test_a_new_file_and_an_old_one_in_a_folder_that_exists_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    check_output(tmp_path / "old.json")
    check_output(str(tmp_path / "NEW.PNG"), suffix=".png")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"], "nothing is written"


def test_a_file_name_alone_is_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_output("f.safetensors", suffix=".safetensors")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(
            ConfigError, match=r"the folder of output .*x\.json cannot be written to: change its mode"
        ):
            check_output(tmp_path / "x.json")
    finally:
        tmp_path.chmod(0o700)
