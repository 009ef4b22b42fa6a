"""Search by example on tables of features: planted copies rank first, and what cannot be is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from videomae.cli import main
from videomae.data.synthetic import write_motion_videos
from videomae.errors import ConfigError
from videomae.inference.feature_job import write_feature_table
from videomae.inference.feature_table import parts_folder
from videomae.inference.window_choice import WindowChoice
from videomae.search import index as index_module
from videomae.search.index import open_index
from videomae.search.query import search_like
from videomae.video.decode import VideoReader
from videomae.video.write import write_video

WINDOWS = WindowChoice(step_seconds=0.3)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen motion videos of 32 pixels and 32 frames; `copies/` holds re-encoded copies of two of them."""
    root = tmp_path_factory.mktemp("footage")
    write_motion_videos(root / "videos", videos_per_class=2, size=32, num_frames=32)
    (root / "copies").mkdir()
    for name in ("left/left_0000", "up/up_0001"):
        with VideoReader(root / "videos" / f"{name}.mp4") as reader:
            frames = np.stack(list(reader.all_frames()))
        write_video(root / "copies" / f"{Path(name).name}.mp4", frames, quality=30)
    return root


@pytest.fixture(scope="module")
def table(footage: Path, encoder_folder: Path) -> Path:
    output = footage / "index.parquet"
    write_feature_table(encoder_folder, [footage / "videos"], output, windows=WINDOWS, device="cpu")
    return output


@pytest.mark.parametrize("name", ["left_0000", "up_0001"])
def test_the_original_of_a_planted_copy_ranks_first(table: Path, footage: Path, name: str) -> None:
    matches = search_like(open_index([table]), footage / "copies" / f"{name}.mp4", device="cpu", top_k=5).matches
    assert Path(matches[0].path).stem == name
    assert matches[0].similarity > 0.9
    assert matches[0].similarity > matches[1].similarity
    assert len(matches) == 5


def test_windows_of_one_place_are_one_result_and_the_clip_itself_is_none(table: Path, footage: Path) -> None:
    own = footage / "videos" / "left" / "left_0000.mp4"
    matches = search_like(open_index([table]), own, start=0.0, end=0.6, device="cpu", top_k=50).matches
    for number, one in enumerate(matches):
        for other in matches[:number]:
            assert one.path != other.path or one.start >= other.end or one.end <= other.start
    assert all(one.path != str(own) or one.start >= 0.6 for one in matches)


def test_a_part_is_searched_for_as_its_own_clip_is(table: Path, footage: Path) -> None:
    copy, index = footage / "copies" / "up_0001.mp4", open_index([table])
    assert search_like(index, copy, start=0.4, end=1.0, device="cpu") == search_like(
        index, copy.with_name("up_0001.mp4#t=0.4,1"), device="cpu"
    )


def test_a_graph_of_many_rows_finds_what_all_rows_do_and_is_kept(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch")
    mine = tmp_path / "index.parquet"
    shutil.copy(table, mine)
    exact = open_index([mine], exact=True)
    monkeypatch.setattr(index_module, "EXACT_ROWS", 10)
    for _ in range(2):  # built, then read
        graph = open_index([mine])
        assert graph.graph is not None
        query = exact.vectors[[3, 17]] + exact.mean
        assert graph.nearest(query, 5).rows.tolist() == exact.nearest(query, 5).rows.tolist()
    assert (tmp_path / "index.parquet.usearch").is_file()


def test_search_prints_and_writes_what_it_finds(
    table: Path,
    footage: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # a narrow terminal would cut the names
    words = ["search", str(table), "--like", str(footage / "copies" / "left_0000.mp4"), "--device", "cpu"]
    assert main([*words, "--json", "--top_k", "3", "--out", str(tmp_path / "found.html")]) == 0
    found = json.loads(capsys.readouterr().out)["matches"]
    assert [set(one) for one in found] == [{"path", "start", "end", "similarity"}] * 3
    page = (tmp_path / "found.html").read_text()
    assert page.count("<video controls") == 4
    assert "left_0000.mp4#t=0.00," in page
    assert "media-src * file:;" in page
    assert "<script" not in page
    assert main(words) == 0
    assert "left_0000.mp4" in capsys.readouterr().out.splitlines()[1]


def test_what_is_no_index_is_refused_with_the_command_that_makes_one(
    table: Path, footage: Path, encoder_folder: Path, pretraining_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"gone\.parquet is no index: make one with videomae features VIDEOS"):
        open_index([tmp_path / "gone.parquet"])
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"other\.parquet is no table of features"):
        open_index([tmp_path / "other.parquet"])
    tokens = tmp_path / "tokens.parquet"
    clip = footage / "copies" / "left_0000.mp4"
    write_feature_table(encoder_folder, [clip], tokens, pooling="tubelet", device="cpu")
    with pytest.raises(
        ConfigError, match=r"holds a vector for each tubelet, .*make the table with --pool clip or att"
    ):
        open_index([tokens])
    write_feature_table(pretraining_folder, [clip], tmp_path / "pre.parquet", windows=WINDOWS, device="cpu")
    with pytest.raises(ConfigError, match=r"cannot be searched together: weights is"):
        open_index([table, tmp_path / "pre.parquet"])
    with pytest.raises(ConfigError, match=r"are not those that the index was made with .*give them with --model"):
        search_like(open_index([table]), clip, model=str(pretraining_folder), device="cpu")
    with pytest.raises(ConfigError, match=r"start is 2 and end is 1: give times in seconds, the end after the start"):
        search_like(open_index([table]), clip, start=2, end=1, device="cpu")
    with pytest.raises(ConfigError, match=r"start is -1; it is a time in the clip, in seconds, at least 0"):
        search_like(open_index([table]), clip, start=-1, device="cpu")
    with pytest.raises(ConfigError, match=r"#t=0,1, a part already, and start or end is given too: leave out one"):
        search_like(open_index([table]), f"{clip}#t=0,1", start=1, device="cpu")
    with pytest.raises(ConfigError, match=r"like is .*, which holds \d+ videos: give one of them"):
        search_like(open_index([table]), clip.parent, device="cpu")
    with pytest.raises(ConfigError, match=r"top_k is 0; it is a number of results"):
        search_like(open_index([table]), clip, top_k=0, device="cpu")


def test_an_unfinished_index_is_searched_as_far_as_it_is(table: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "half.parquet"
    parts_folder(unfinished).mkdir()
    shutil.copy(table, parts_folder(unfinished) / "00000001.parquet")
    with pytest.warns(
        UserWarning, match=r"half\.parquet is unfinished: searching what is done; continue with --resume"
    ):
        assert len(open_index([unfinished]).vectors) == len(open_index([table]).vectors)


def test_page_and_json_say_that_an_index_is_unfinished(
    table: Path, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "half.parquet"
    parts_folder(unfinished).mkdir()
    shutil.copy(table, parts_folder(unfinished) / "00000001.parquet")
    clip, page = str(footage / "copies" / "left_0000.mp4"), tmp_path / "found.html"
    for index, expected in ((unfinished, [str(unfinished)]), (table, [])):
        assert main(["search", str(index), "--like", clip, "--device", "cpu", "--json", "--out", str(page)]) == 0
        assert json.loads(capsys.readouterr().out)["unfinished"] == expected
        assert ("half.parquet is unfinished." in page.read_text(encoding="utf-8")) is bool(expected)
