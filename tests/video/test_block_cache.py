"""The cache of remote blocks: never beyond its bound, never half a block, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.video.block_cache import BlockCache, block_cache

KB = 1000


def bytes_in(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".block", ".tmp"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:  # removed meanwhile
                continue
    return sum(sizes)


def test_a_block_is_given_back_as_it_was_and_never_damaged(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100 * KB)
    cache.put("one", b"content" * 100)
    cache.put("empty", b"")
    assert cache.get("one") == b"content" * 100
    assert cache.get("empty") == b""
    assert cache.get("other") is None
    (path,) = (path for path in tmp_path.rglob("*.block") if path.stat().st_size > 10)
    content = path.read_bytes()
    for damaged in (content[:-10], b"C" + content[1:], b"", content + b"x"):
        path.write_bytes(damaged)
        assert cache.get("one") is None


def test_the_bound_holds_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100 * KB)
    now = time.time()
    for number in range(9):
        cache.put(str(number), bytes(10 * KB))
        os.utime(cache._path(str(number)), (now - 1000 + number, now - 1000 + number))
    assert cache.get("0") is not None  # used just now
    for number in range(9, 12):
        cache.put(str(number), bytes(10 * KB))
        assert bytes_in(tmp_path) <= 100 * KB
    there = [number for number in range(12) if cache.get(str(number)) is not None]
    assert 0 in there
    assert {1, 2}.isdisjoint(there)
    assert there[-3:] == [9, 10, 11]
    cache.put("too large", bytes(95 * KB))
    assert cache.get("too large") is None
    assert cache.get("11") is not None


WRITER = """
import sys
from pathlib import Path
from videomae.video.block_cache import BlockCache

cache, name, number = BlockCache(Path(sys.argv[1]), 400_000), sys.argv[2], 0
print("go", flush=True)
while True:
    data = f"{name}-{number}-".encode() * 1000
    cache.put(f"{name}-{number}", data)
    for before in range(max(number - 5, 0), number):
        found = cache.get(f"{name}-{before}")
        assert found is None or found == f"{name}-{before}-".encode() * 1000
    number += 1
"""


@pytest.mark.slow
def test_processes_that_are_killed_leave_no_half_block_and_the_bound_holds(tmp_path: Path) -> None:
    for attempt in range(3):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), f"{attempt}{name}"], stdout=subprocess.PIPE
            )
            for name in "ab"
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                with BlockCache(tmp_path, 400_000)._ledger():  # nobody takes space or makes some while it is counted
                    # A file of either process may be renamed meanwhile, and be counted under both names.
                    assert bytes_in(tmp_path) <= 400_000 + 2 * 10_000
                time.sleep(0.02)
            for process in processes:
                assert process.poll() is None, "it has met a block that is not its own"
        finally:  # also after a failure: they write until they are killed
            for process in processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
        assert bytes_in(tmp_path) <= 400_000
    cache = BlockCache(tmp_path, 400_000)
    for path in tmp_path.rglob("*.tmp"):
        os.utime(path, (1, 1))  # long ago
    for number in range(60):
        cache.put(f"after {number}", bytes(10 * KB))
    assert list(tmp_path.rglob("*.tmp")) == []
    assert bytes_in(tmp_path) <= 400_000


def test_a_folder_that_cannot_be_written_to_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = BlockCache(tmp_path / "file", 100 * KB)
    cache.put("one", b"content")
    assert cache.get("one") is None


def test_its_place_and_size_are_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("VIDEOMAE_CACHE_GB", "0.5")
    found = block_cache()
    assert found is not None
    assert (found.folder, found.max_bytes) == (tmp_path / "here", 500_000_000)
    monkeypatch.setenv("VIDEOMAE_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="VIDEOMAE_CACHE_GB is 'much'; it is a size in GB above 0, such as 10"):
        block_cache()
    monkeypatch.setenv("VIDEOMAE_CACHE", "off")
    assert block_cache() is None
