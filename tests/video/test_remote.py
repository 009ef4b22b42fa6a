"""Videos behind s3:// and http:// are read as exactly as files, by ranges, through faults, and known again."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loopback_s3 import BUCKET, Bucket
from loopback_web import serve_folder
from odd_videos import encode_video
from videomae.data.manifest_file import read_manifest
from videomae.data.scan import scan_unlabelled
from videomae.errors import VideoReadError
from videomae.video import remote
from videomae.video.decode import VideoReader, read_clip
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader

pytestmark = pytest.mark.slow

ORDER = [17, 3, 3, 29, 0, 18]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that small videos have many."""
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1024)


def plain(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
@pytest.mark.usefixtures("small_blocks")
def test_frames_are_those_of_the_file_and_come_by_ranges(bucket: Bucket, tmp_path: Path, name: str) -> None:
    path = encode_video(tmp_path / name, options={"g": "6", "bf": "2"})
    address = bucket.put(f"a b/ü {name}", plain(path))
    assert (read_clip(address, ORDER) == read_clip(path, ORDER)).all()
    ranges = [one[2] for one in bucket.proxy.requests if one[0] == "GET"]
    assert len(ranges) > 1
    assert all(one.startswith("bytes=") for one in ranges)
    with open_reader(f"{address}#t=0.4,0.8") as reader:
        assert (reader.frames([0]) == read_clip(path, [10])).all()
        assert str(reader.info.path) == address


@pytest.mark.usefixtures("small_blocks")
def test_what_was_read_once_is_not_fetched_again_until_it_changes(bucket: Bucket, tmp_path: Path) -> None:
    one, other = (encode_video(tmp_path / f"{seed}.mp4", seed=seed, options={"g": "1"}) for seed in (1, 2))
    address = bucket.put("changing.mp4", plain(one))
    read_clip(address, ORDER)
    before = bucket.proxy.count("GET", "changing.mp4")
    assert (read_clip(address, ORDER) == read_clip(one, ORDER)).all()
    assert bucket.proxy.count("GET", "changing.mp4") == before
    bucket.put("changing.mp4", plain(other))
    assert (read_clip(address, ORDER) == read_clip(other, ORDER)).all()


@pytest.mark.usefixtures("small_blocks")
def test_a_kept_index_opens_a_remote_video_with_one_question_and_notices_a_change(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (encode_video(tmp_path / f"{seed}.mp4", seed=seed, options={"g": "1"}) for seed in (1, 2))
    address = bucket.put("folder/known.mp4", plain(one))
    folders = (tmp_path / "index",)
    read = partial(open_reader, address, store=IndexStore(f"s3://{BUCKET}/folder", folders))
    with read() as reader:
        reader.frames(ORDER)
    monkeypatch.setenv("VIDEOMAE_CACHE", "off")  # so that what is fetched shows
    bucket.proxy.requests.clear()
    with open_reader(address, store=IndexStore(f"s3://{BUCKET}/folder", folders)) as reader:
        assert isinstance(reader, VideoReader)
        assert reader._is_kept
        assert [one[0] for one in bucket.proxy.requests] == ["HEAD"]
        assert (reader.frames([7]) == read_clip(one, [7])).all()
        assert len(bucket.proxy.requests) == 2  # the packets of one frame alone
    bucket.put("folder/known.mp4", plain(other))
    with read() as reader:
        assert (reader.frames(ORDER) == read_clip(other, ORDER)).all()


@pytest.mark.parametrize("faults", [["503"], ["503", "503", "503"], ["cut"], ["slow"], ["503", "cut", "503", "slow"]])
def test_a_fault_that_passes_is_not_seen(bucket: Bucket, tiny_video: Path, faults: list[Any]) -> None:
    address = bucket.put("faulty.mp4", plain(tiny_video))
    bucket.proxy.faults["faulty.mp4"] = [*faults]
    assert (read_clip(address, ORDER) == read_clip(tiny_video, ORDER)).all()
    assert bucket.proxy.faults["faulty.mp4"] == []


@pytest.mark.parametrize(
    ("fault", "said"), [("503", "503|Unavailable|Come back later"), ("cut", "payload|Connection")]
)
def test_a_fault_that_stays_is_an_error_of_one_line_after_five_tries(
    bucket: Bucket, tiny_video: Path, fault: Any, said: str
) -> None:
    address = bucket.put("lost.mp4", plain(tiny_video))
    bucket.proxy.always["lost.mp4"] = fault
    with pytest.raises(
        VideoReadError, match=rf"s3://videos/lost\.mp4 cannot be read: .*({said}).*, 5 times"
    ) as found:
        read_clip(address, [0])
    assert "\n" not in str(found.value)
    asked = bucket.proxy.count("HEAD", "lost.mp4"), bucket.proxy.count("GET", "lost.mp4")
    assert asked == ((5, 0) if fault == "503" else (1, 5))


def test_a_server_that_says_nothing_is_asked_again(
    bucket: Bucket, tiny_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 1)
    address = bucket.put("silent.mp4", plain(tiny_video))
    bucket.proxy.faults["silent.mp4"] = ["silent"]
    assert (read_clip(address, ORDER) == read_clip(tiny_video, ORDER)).all()
    assert bucket.proxy.count("GET", "silent.mp4") == 2


def in_a_fork(addresses: list[str]) -> None:
    for address in addresses:
        read_clip(address, ORDER)
        gc.collect()
    scan_unlabelled(addresses[0].rpartition("/")[0])
    gc.collect()


def test_a_forked_process_that_reads_and_ends_does_not_silence_the_connections_of_this_one(
    bucket: Bucket, tiny_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 4)
    addresses = [bucket.put(f"forks/fork{number}.mp4", plain(tiny_video)) for number in range(5)]
    scan_unlabelled(f"s3://{BUCKET}/forks")
    read_clip(addresses[0], ORDER)
    process = multiprocessing.get_context("fork").Process(target=in_a_fork, args=([addresses[1], *addresses[3:]],))
    process.start()
    process.join()
    assert process.exitcode == 0
    start = time.monotonic()
    assert (read_clip(addresses[2], ORDER) == read_clip(tiny_video, ORDER)).all()
    assert time.monotonic() - start < 4
    assert (bucket.proxy.count("HEAD", "fork2.mp4"), bucket.proxy.count("GET", "fork2.mp4")) == (1, 1)


def test_what_is_not_there_or_no_file_is_said_without_trying_again(bucket: Bucket, tiny_video: Path) -> None:
    bucket.put("deep/a.mp4", plain(tiny_video))
    with pytest.raises(VideoReadError, match=r"s3://videos/gone\.mp4 does not exist: check the address"):
        VideoReader(f"s3://{BUCKET}/gone.mp4")
    assert bucket.proxy.count("HEAD", "gone.mp4") == 1
    with pytest.raises(VideoReadError, match=r"s3://videos/deep is a folder: name a video file in it"):
        VideoReader(f"s3://{BUCKET}/deep")
    with pytest.raises(
        VideoReadError, match=r"text\.mp4 cannot be read as video: .* damaged, cut off, or not a video"
    ):
        VideoReader(bucket.put("text.mp4", b"no video at all " * 100))
    with pytest.raises(VideoReadError, match="addresses of the kind nfs:// are not read; give an http"):
        VideoReader("nfs://host/a.mp4")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The http address of `tmp_path` and the ranges that were asked for."""
    with serve_folder(tmp_path) as served:
        yield served


@pytest.mark.usefixtures("small_blocks")
def test_http_is_read_by_ranges_where_the_server_sends_them(
    web: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "cache"))
    path = encode_video(tmp_path / "x.mp4", options={"g": "6", "bf": "2"})
    address, asked = web
    assert (read_clip(f"{address}/x.mp4?v=1", ORDER) == read_clip(path, ORDER)).all()
    assert all(asked[1:])
    (tmp_path / "list.csv").write_text("path,label\nx.mp4,a\n", encoding="utf-8")
    (row,) = read_manifest(Path(f"{address}/list.csv"), labelled=True).rows
    assert (str(row.path), row.label) == (f"{address}/x.mp4", 0)
    monkeypatch.setattr(remote, "has_ranges", lambda address: False)  # as without the extra
    assert read_manifest(Path(f"{address}/list.csv"), labelled=True).rows == (row,)
    asked.clear()
    assert (read_clip(f"{address}/x.mp4", ORDER) == read_clip(path, ORDER)).all()
    assert asked == [""]
