"""Parts of videos: their names, their frames, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader
from videomae.video.opening import open_reader, part_name, split_part, stored_frames


def test_a_part_has_the_frames_that_are_shown_between_its_times(tiny_video: Path) -> None:
    with VideoReader(tiny_video) as whole, open_reader(part_name(tiny_video, 0.4, 0.8)) as part:
        assert len(part) == 10
        assert stored_frames(part, np.arange(3)).tolist() == [10, 11, 12]
        assert stored_frames(whole, np.arange(3)).tolist() == [0, 1, 2]
        assert np.array_equal(part.frames([0, 9, 3]), whole.frames([10, 19, 13]))
        assert part.timestamps_seconds.tolist() == whole.timestamps_seconds[10:20].tolist()
        assert np.array_equal(np.stack(list(part.all_frames())), whole.frames(range(10, 20)))
        assert part.info == whole.info


def test_neighbouring_parts_share_no_frame_and_lose_none(tiny_video: Path) -> None:
    times = [0.0, 0.33, 0.92, 1.2, None]
    lengths = []
    for start, end in pairwise(times):
        with open_reader(part_name(tiny_video, start, end)) as part:
            lengths.append(len(part))
    assert sum(lengths) == 40


def test_a_name_and_a_part_are_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a b.mp4"
    for start, end, name in [
        (None, None, "a b.mp4"),
        (1.5, 3.0, "a b.mp4#t=1.5,3"),
        (2.0, None, "a b.mp4#t=2"),
        (None, 1e-5, "a b.mp4#t=0,0.00001"),
    ]:
        assert part_name(path, start, end).name == name
        assert split_part(part_name(path, start, end)) == (path, 0.0 if end and start is None else start, end)


def test_a_file_of_such_a_name_is_no_part(tiny_video: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a.mp4#t=1"
    odd.write_bytes(tiny_video.read_bytes())
    assert split_part(odd) == (odd, None, None)
    with open_reader(odd) as reader:
        assert len(reader) == 40


def test_a_part_without_frames_and_frames_outside_it_are_refused(tiny_video: Path) -> None:
    with pytest.raises(
        VideoReadError, match=r"no frame from second 7 to second 9: its last one is shown at .* 1\.56"
    ):
        open_reader(part_name(tiny_video, 7.0, 9.0))
    with open_reader(part_name(tiny_video, 0.4, 0.8)) as part:
        for index in (-1, 10):
            with pytest.raises(VideoReadError, match=rf"frame {index} was asked of a part .* has frames 0 to 9"):
                part.frames([index])
    with pytest.raises(VideoReadError, match="was closed"):
        part.frames([0])
