"""Outputs are checked before anything is computed for them, and have names that do not collide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.inference.files import check_name_for_each, check_output, output_names


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


def test_outputs_are_named_after_their_videos_and_none_replaces_another() -> None:
    videos = ["a/clip.one.mp4", "https://host/a/b%20c.mp4?token=1#t=2", "b/Clip.one.mkv", "b/clip.one.mp4#t=0,61.5"]
    assert list(output_names("x/{video}.srt", [*videos, videos[0]]).items()) == [
        (videos[0], "x/clip.one.srt"),
        (videos[1], "x/b%20c-2.srt"),
        (videos[2], "x/Clip.one-2.srt"),
        (videos[3], "x/clip.one-0-61.5.srt"),
    ]


def test_one_name_for_several_videos_is_refused_with_one_that_will_do() -> None:
    check_name_for_each("out", "x.png", 1)
    check_name_for_each("out", "{video}.png", 2)
    with pytest.raises(ConfigError, match=r"out is 'y/x\.png', .* there are 2: .* such as y/\{video\}-x\.png"):
        check_name_for_each("out", "y/x.png", 2)
