"""Generated videos as files: the clips of the seed, and never beside other videos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomae.data.generated import write_procedural_videos
from videomae.data.procedural import ProceduralVideos
from videomae.errors import ConfigError, ManifestError
from videomae.video.decode import VideoReader


def test_written_videos_are_the_clips_of_the_seed_and_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    write_procedural_videos(
        tmp_path, videos=2, size=32, num_frames=6, seed=3, on_progress=lambda *one: done.append(one)
    )
    assert done == [(1, 2), (2, 2)]
    clips = ProceduralVideos(3, num_frames=6, size=32).clips(torch.arange(2)).permute(0, 1, 3, 4, 2)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        with VideoReader(path) as reader:
            frames = torch.from_numpy(reader.frames(range(6)))
        assert len(frames) == 6
        own, other = ((frames.float() - clips[one].float()).abs().mean() for one in (number, 1 - number))
        assert own < 10  # grey levels of 255: H.264's loss
        assert other > 3 * own
    write_procedural_videos(tmp_path, videos=2, size=32, num_frames=6, seed=3)
    (tmp_path / "mine.mp4").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"already holds another video, mine\.mp4"):
        write_procedural_videos(tmp_path, videos=2, size=32, num_frames=6)


@pytest.mark.parametrize(
    ("settings", "text"), [({"videos": 0}, "videos is 0; it must be at least 1"), ({"size": 33}, "size is 33 pixels")]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, settings: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        write_procedural_videos(tmp_path / "none", **{"videos": 1, **settings})
    assert not (tmp_path / "none").exists()
