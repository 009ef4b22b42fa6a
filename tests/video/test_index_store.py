"""A store of what is known of videos: used at the second opening, never believed where wrong, never in the way."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odd_videos import encode_video
from videomae.video import index_store as module
from videomae.video.decode import VideoReader, read_clip
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import FOLDER, RECORD_SUFFIX, SWITCH, TABLE_SUFFIX, IndexStore, index_store
from videomae.video.indexed import IndexedVideo

ORDER = [17, 3, 3, 29, 0, 18]
KINDS: dict[str, dict[str, Any]] = {
    "direct.mp4": {"options": {"g": "6", "bf": "2"}},
    "container.mkv": {"options": {"g": "6", "bf": "2"}},
    "decoded.mp4": {"options": {"g": "6", "x264-params": "interlaced=1"}},
    "counted.wmv": {"codec": "wmv2", "options": {"g": "6"}},
}


def new_store(root: Path) -> IndexStore:
    """A store as another process would have it: nothing of it is in memory."""
    return IndexStore(root, (root / FOLDER,))


def is_kept(path: Path, root: Path) -> bool:
    return new_store(root).get(EncodedFile(path)) is not None


def packets_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose packets are read from here on to index them."""
    found: list[str] = []
    original = VideoReader._index_packets

    def noted(self: VideoReader) -> IndexedVideo:
        found.append(Path(self._file.name).name)
        return original(self)

    monkeypatch.setattr(VideoReader, "_index_packets", noted)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_the_second_opening_reads_no_packets_and_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = encode_video(tmp_path / name, **KINDS[name])
    with VideoReader(path) as reader:
        wanted, times, info = reader.frames(ORDER), reader.timestamps_seconds, reader.info
    with VideoReader(path, store=new_store(tmp_path)) as reader:
        reader.frames(ORDER)
    indexed = packets_of(monkeypatch)
    decoded: list[str] = []
    monkeypatch.setattr(VideoReader, "_decode_index", lambda self: decoded.append(name))
    with VideoReader(path, store=new_store(tmp_path)) as reader:
        assert (reader.frames(ORDER) == wanted).all()
        assert (reader.timestamps_seconds == times).all()
        assert reader.info == info
    assert (indexed, decoded) == ([], [])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="reads Linux's count of bytes read")
def test_the_second_opening_reads_hardly_a_byte_of_the_file(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", num_frames=300, size=(240, 320), options={"g": "1"})

    def bytes_read(store: IndexStore) -> int:
        before = Path("/proc/self/io").read_text()
        VideoReader(path, store=store).close()
        after = Path("/proc/self/io").read_text()
        return int(after.split()[1]) - int(before.split()[1])

    assert path.stat().st_size > 1_000_000
    assert bytes_read(new_store(tmp_path)) > 1_000_000
    assert bytes_read(new_store(tmp_path)) < 20_000  # the table and the record


def test_a_file_that_has_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode_video(tmp_path / "a.mp4", num_frames=30)
    store = new_store(tmp_path)
    VideoReader(path, store=store).close()
    indexed = packets_of(monkeypatch)
    encode_video(path, num_frames=50, seed=1)
    with VideoReader(path, store=store) as reader:
        assert len(reader) == 50
        assert (reader.frames(ORDER) == read_clip(path, ORDER)).all()
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))  # touched: cannot be told from changed
    VideoReader(path, store=store).close()
    assert indexed == ["a.mp4", "a.mp4", "a.mp4"]  # read_clip has no store


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_another_file_of_the_same_size_and_time_is_noticed_when_it_is_read(tmp_path: Path, name: str) -> None:
    """What no key can tell."""
    first = encode_video(tmp_path / name, options={"g": "6", "bf": "2"})
    other = encode_video(tmp_path / f"other_{name}", num_frames=40, options={"g": "9", "bf": "0"}, seed=3)
    content, size = other.read_bytes(), max(first.stat().st_size, other.stat().st_size)
    first.write_bytes(first.read_bytes() + bytes(size - first.stat().st_size))
    os.utime(first, ns=(5, 5))
    store = new_store(tmp_path)
    with VideoReader(first, store=store) as reader:
        reader.frames(ORDER)
    first.write_bytes(content + bytes(size - len(content)))
    os.utime(first, ns=(5, 5))
    wanted = read_clip(first, ORDER)
    for _ in range(2):  # and remembered
        with VideoReader(first, store=store) as reader:
            assert (reader.frames(ORDER) == wanted).all()
            assert len(reader) == 40


def test_a_collection_may_be_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    path = encode_video(tmp_path / "here" / "a.mp4")
    VideoReader(path, store=new_store(tmp_path / "here")).close()
    os.rename(tmp_path / "here", tmp_path / "there")
    assert is_kept(tmp_path / "there" / "a.mp4", tmp_path / "there")


def test_videos_elsewhere_are_kept_too(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    path = encode_video(tmp_path / "a.mp4")
    VideoReader(path, store=new_store(tmp_path / "lists")).close()
    assert is_kept(path, tmp_path / "lists")


def test_a_folder_that_cannot_be_written_to_leaves_it_to_the_next_or_to_none(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4")
    (tmp_path / ".videomae").write_text("a file where the folder should be")
    first, second = tmp_path / FOLDER, tmp_path / "cache" / "x"
    for folders in ((first,), ()):
        store = IndexStore(tmp_path, folders)
        for _ in range(2):
            with VideoReader(path, store=store) as reader:
                assert len(reader) == 30
    with VideoReader(path, store=IndexStore(tmp_path, (first, second))) as reader:
        assert len(reader) == 30
    assert IndexStore(tmp_path, (first, second)).get(EncodedFile(path)) is not None


def test_stores_are_in_the_folder_or_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    root = tmp_path / "videos"
    root.mkdir()
    path = encode_video(root / "a.mp4")
    monkeypatch.delenv(SWITCH, raising=False)
    VideoReader(path, store=index_store(root)).close()
    assert sorted(file.suffix for file in (root / FOLDER).iterdir()) == [RECORD_SUFFIX, TABLE_SUFFIX]
    assert not (tmp_path / "cache").exists()
    for off in ("off", "0", "OFF"):
        monkeypatch.setenv(SWITCH, off)
        assert index_store(root) is None
    monkeypatch.setenv(SWITCH, str(tmp_path / "elsewhere"))
    VideoReader(path, store=index_store(root)).close()
    assert len(list((tmp_path / "elsewhere").rglob(f"*{TABLE_SUFFIX}"))) == 1


def test_damage_to_a_store_costs_only_what_it_hits_and_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [encode_video(tmp_path / f"{number}.mp4", num_frames=20 + number) for number in range(4)]
    store = new_store(tmp_path)
    for path in paths:
        VideoReader(path, store=store).close()
    (records,) = (tmp_path / FOLDER).glob(f"*{RECORD_SUFFIX}")
    (table,) = (tmp_path / FOLDER).glob(f"*{TABLE_SUFFIX}")
    content = bytearray(records.read_bytes())
    content[len(content) // 3] ^= 0xFF
    records.write_bytes(content)
    (tmp_path / FOLDER / f"noise{TABLE_SUFFIX}").write_bytes(np.random.default_rng(0).bytes(1000))
    (tmp_path / FOLDER / f"empty{TABLE_SUFFIX}").touch()
    indexed = packets_of(monkeypatch)
    for _ in range(2):
        store = new_store(tmp_path)
        for number, path in enumerate(paths):
            with VideoReader(path, store=store) as reader:
                assert len(reader) == 20 + number
    assert len(indexed) == 1
    indexed.clear()
    records.unlink()
    table.write_bytes(table.read_bytes()[:-7])
    for path in paths:
        VideoReader(path, store=new_store(tmp_path)).close()
    assert len(indexed) == 3  # the one that was mended is in another file


def test_a_process_that_is_killed_while_it_writes_loses_nothing_else(tmp_path: Path) -> None:
    paths = [encode_video(tmp_path / f"{number}.mp4") for number in range(3)]
    program = """
import os, signal, sys
from pathlib import Path
from videomae.video import index_store
from videomae.video.decode import VideoReader
root = Path(sys.argv[1])
store = index_store.IndexStore(root, (root / index_store.FOLDER,))
VideoReader(root / "0.mp4", store=store).close()
write = index_store.write_end
def killed(path, content):
    if path.suffix == sys.argv[2]:
        write(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
index_store.write_end = killed
VideoReader(root / "1.mp4", store=store).close()
"""
    for suffix in (RECORD_SUFFIX, TABLE_SUFFIX):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path), suffix], timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL
        assert [is_kept(path, tmp_path) for path in paths] == [True, False, False]
    VideoReader(paths[1], store=new_store(tmp_path)).close()
    assert [is_kept(path, tmp_path) for path in paths] == [True, True, False]


def read_all(store: IndexStore, paths: list[Path], start: int) -> None:
    for _ in range(3):
        for path in paths[start:] + paths[:start]:
            with VideoReader(path, store=store) as reader:
                assert (reader.frames([5, 20]) == read_clip(path, [5, 20])).all()


def test_processes_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [encode_video(tmp_path / f"{number}.mp4", seed=number) for number in range(8)]
    store = new_store(tmp_path)
    VideoReader(paths[0], store=store).close()  # what is forked has files of its own already
    workers = [
        multiprocessing.get_context("fork").Process(target=read_all, args=(store, paths, 3 * number))
        for number in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    indexed = packets_of(monkeypatch)
    read = new_store(tmp_path)
    for path in paths:
        VideoReader(path, store=read).close()
    assert indexed == []
    # One of this process, one of each of the others that had something to add: one may have been ahead in everything.
    assert len(list((tmp_path / FOLDER).glob(f"*{TABLE_SUFFIX}"))) in (2, 3)


def test_a_pickled_store_is_the_one_of_its_process(tmp_path: Path) -> None:
    store = index_store(tmp_path)
    assert pickle.loads(pickle.dumps(store)) is store


def test_what_others_add_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFRESH_FRACTION", float("inf"))  # looks each time
    path = encode_video(tmp_path / "a.mp4")
    mine, other = new_store(tmp_path), new_store(tmp_path)
    assert mine.get(EncodedFile(path)) is None
    VideoReader(path, store=other).close()
    assert mine.get(EncodedFile(path)) is not None


def test_a_video_that_never_holds_is_not_written_again_and_again(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4")
    store = new_store(tmp_path)
    with VideoReader(path, store=store) as reader:
        for number in range(50):
            info = {**reader._video.info.__dict__, "frame_rate": float(number)}
            video = type(reader._video)(**{**reader._video.__dict__, "info": type(reader.info)(**info)})
            store.put(EncodedFile(path), video)
    (table,) = (tmp_path / FOLDER).glob(f"*{TABLE_SUFFIX}")
    assert table.stat().st_size == 3 * 40


def test_the_memory_of_a_store_is_that_of_its_table(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    path = encode_video(tmp_path / "a.mp4")
    VideoReader(path, store=new_store(tmp_path)).close()
    lines = np.frombuffer(np.random.default_rng(0).bytes(100_000 * 40), module.LINE)
    (folder / f"many{TABLE_SUFFIX}").write_bytes(lines.tobytes())
    (folder / f"many{RECORD_SUFFIX}").touch()
    store = new_store(tmp_path)
    tracemalloc.start()
    assert store.get(EncodedFile(path)) is not None
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8e6
    assert peak < 25e6


def test_a_lock_that_a_thread_held_does_not_stop_a_forked_process(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4")
    store = new_store(tmp_path)
    with store._lock:
        worker = multiprocessing.get_context("fork").Process(target=read_all, args=(store, [path], 0))
        worker.start()
        worker.join(60)
        is_stuck = worker.is_alive()
        worker.kill()
    assert not is_stuck
    assert worker.exitcode == 0
