"""Old records leave a store, and nothing else does, whoever reads, writes or is killed meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from odd_videos import encode_video
from videomae.errors import ConfigError
from videomae.video import index_store as stores
from videomae.video import index_tidying as tidying
from videomae.video.decode import VideoReader
from videomae.video.encoded import EncodedFile
from videomae.video.index_files import lines_of, tables_of
from videomae.video.index_store import FOLDER, IndexStore, index_store

NAMES = ("a.mp4", "b.mp4", "c.mp4", "deep/ü d.mp4")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four videos, each in a pair of another process, long ago; a store is tidied whenever it has grown."""
    monkeypatch.setattr(tidying, "GROWTH_BYTES", 0)
    monkeypatch.delenv("VIDEOMAE_INDEX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = tmp_path / "v"
    (folder / "deep").mkdir(parents=True)
    encode_video(folder / NAMES[0], num_frames=5)
    for name in NAMES:
        if name != NAMES[0]:
            shutil.copy(folder / NAMES[0], folder / name)
        VideoReader(folder / name, store=IndexStore(folder, (folder / FOLDER,))).close()
    long_ago(folder)
    return folder


def long_ago(root: Path) -> None:
    for path in (root / FOLDER).iterdir():
        os.utime(path, (1e9, 1e9))


def tidied(root: Path) -> IndexStore:
    """The store as the next process would have it."""
    stores._STORES.clear()
    found = index_store(root)
    assert found is not None
    return found


def kept(root: Path) -> set[str]:
    store = IndexStore(root, (root / FOLDER,))
    return {name for name in NAMES if (root / name).exists() and store.get(EncodedFile(root / name)) is not None}


def num_lines(root: Path) -> int:
    return sum(len(lines_of(table)) for table in tables_of(root / FOLDER))


def test_records_of_files_that_are_gone_or_have_changed_are_removed_and_the_others_stay(root: Path) -> None:
    assert (num_lines(root), len(tables_of(root / FOLDER))) == (4, 4)
    reading = IndexStore(root, (root / FOLDER,))  # of a process that reads meanwhile
    assert reading.get(EncodedFile(root / "a.mp4")) is not None
    (root / "b.mp4").unlink()
    os.utime(root / "c.mp4", (5, 5))
    store = tidied(root)
    assert (num_lines(root), len(tables_of(root / FOLDER))) == (2, 1)
    for one in (store, reading, IndexStore(root, (root / FOLDER,))):
        one._refresh_time = -1.0
        assert one.get(EncodedFile(root / "a.mp4")) is not None
        assert one.get(EncodedFile(root / "deep" / "ü d.mp4")) is not None
    VideoReader(root / "c.mp4", store=store).close()
    assert kept(root) == {"a.mp4", "c.mp4", "deep/ü d.mp4"}


def test_a_store_is_gone_through_only_where_it_has_grown_and_what_is_being_written_is_left_alone(root: Path) -> None:
    tidied(root)
    (root / "b.mp4").unlink()
    before = sorted((root / FOLDER).iterdir())
    tidied(root)
    assert sorted((root / FOLDER).iterdir()) == before
    encode_video(root / "a.mp4", num_frames=400)  # a larger record, of a process that still runs
    VideoReader(root / "a.mp4", store=IndexStore(root, (root / FOLDER,))).close()
    tidied(root)
    assert kept(root) == {"a.mp4", "c.mp4", "deep/ü d.mp4"}
    assert num_lines(root) == 3, "that of the file before, and of the file that is gone, are removed"


def test_the_oldest_go_where_a_store_is_larger_than_it_may_be(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(path.stat().st_size for path in (root / FOLDER).iterdir())
    monkeypatch.setenv("VIDEOMAE_INDEX_GB", str(total * 0.7e-9))
    tidied(root)
    assert kept(root) == {"c.mp4", "deep/ü d.mp4"}
    monkeypatch.setenv("VIDEOMAE_INDEX_GB", "-1")
    with pytest.raises(ConfigError, match="VIDEOMAE_INDEX_GB is '-1'; it is a size in GB above 0"):
        tidied(root)


def test_who_is_killed_leaves_what_was_there_and_the_next_one_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "b.mp4").unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)  # after the new pair is written, before the old ones are removed
        with pytest.raises(KeyboardInterrupt):
            tidied(root)
    assert kept(root) == {"a.mp4", "c.mp4", "deep/ü d.mp4"}
    long_ago(root)
    tidied(root)
    assert kept(root) == {"a.mp4", "c.mp4", "deep/ü d.mp4"}
    assert num_lines(root) == 3


def test_a_process_whose_pair_was_tidied_away_adds_to_a_new_one(root: Path) -> None:
    store = IndexStore(root, (root / FOLDER,))
    for name in ("one.mp4", "two.mp4"):
        shutil.copy(root / "a.mp4", root / name)
    VideoReader(root / "one.mp4", store=store).close()
    (root / "b.mp4").unlink()
    long_ago(root)
    tidied(root)
    VideoReader(root / "two.mp4", store=store).close()
    again = IndexStore(root, (root / FOLDER,))
    assert again.get(EncodedFile(root / "one.mp4")) is not None
    assert again.get(EncodedFile(root / "two.mp4")) is not None
