"""Rows kept on disk while they are computed: what a kill has cut is dropped, and what has changed is begun anew."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from videomae.errors import RunError
from videomae.inference.kept_rows import KeptRows, file_identity, remove_kept


@pytest.fixture
def kept(tmp_path: Path) -> KeptRows:
    return KeptRows(tmp_path / "x.json", {"step": 2}, width=3, batch_size=4, resume=False)


@pytest.fixture
def name(tmp_path: Path) -> str:
    (tmp_path / "v.mp4").write_bytes(b"v")
    return str(tmp_path / "v.mp4")


def test_rows_that_were_cut_and_batches_that_are_not_full_are_dropped(kept: KeptRows, name: str) -> None:
    assert kept.begin(name) == 0
    kept.append(name, np.arange(18.0).reshape(6, 3))
    with open(kept._path(name), "ab") as stream:
        stream.write(b"12345")
    assert kept.rows(name).shape == (6, 3)
    assert kept.begin(name) == 4
    assert np.array_equal(kept.rows(name), np.arange(12.0).reshape(4, 3))


def test_what_was_noted_of_a_video_is_there_until_its_file_changes(kept: KeptRows, name: str, tmp_path: Path) -> None:
    part = f"{name}#t=1,2"
    for video in (name, part):
        kept.begin(video)
        kept.append(video, np.ones((2, 3)))
        assert kept.finished(video) is None
        kept.finish(video, {"fault": None}, places=np.arange(2))
    again = KeptRows(tmp_path / "x.json", {"step": 2}, width=3, batch_size=4, resume=True)
    found = again.finished(part)
    assert found is not None
    assert (found.values, found.arrays["places"].tolist()) == ({"fault": None}, [0, 1])
    Path(name).write_bytes(b"another")
    assert [again.finished(video) for video in (name, part)] == [None, None]
    assert [again.begin(video) for video in (name, part)] == [0, 0]


def test_other_settings_are_refused_and_without_resume_all_is_begun_anew(
    kept: KeptRows, name: str, tmp_path: Path
) -> None:
    kept.begin(name)
    kept.append(name, np.ones((4, 3)))
    with pytest.raises(RunError, match=r"was begun with another step \(2, now 3\): .* leave out --resume"):
        KeptRows(tmp_path / "x.json", {"step": 3}, width=3, batch_size=4, resume=True)
    anew = KeptRows(tmp_path / "x.json", {"step": 3}, width=3, batch_size=4, resume=False)
    assert anew.rows(name).shape == (0, 3)
    remove_kept(tmp_path / "x.json")
    assert sorted(os.listdir(tmp_path)) == ["v.mp4"]


def test_a_name_that_is_no_file_has_no_identity(name: str) -> None:
    assert file_identity(name) == file_identity(f"{name}#t=1") == [1, os.stat(name).st_mtime_ns]
    assert file_identity(f"{name}.gone") is None
    assert file_identity("a\0b") is None
