"""Folders of numbered pictures: the same frames as pictures hold, in the order of their numbers; faults are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from videomae.errors import VideoReadError
from videomae.video.opening import open_reader, part_name, size_of
from videomae.video.pictures import PictureReader, parse_picture, split_template

Frames = NDArray[np.uint8]


def save(folder: Path, frames: Frames, names: str = "img_{:05}.png", *, first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, first):
        Image.fromarray(frame).save(folder / names.format(number))
    return folder


def test_frames_are_the_pictures_in_the_order_asked(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames)
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden_1.png").write_text("x")
    with open_reader(folder) as reader:
        assert len(reader) == 40
        assert np.array_equal(reader.frames([7, 0, 39, 7]), tiny_frames[[7, 0, 39, 7]])
        assert np.array_equal(np.stack(list(reader.all_frames())), tiny_frames)
        assert (reader.info.width, reader.info.height, reader.info.codec) == (64, 48, "png")
    with pytest.raises(VideoReadError, match="was closed: read frames before leaving"):
        reader.frames([0])


def test_the_order_is_that_of_the_numbers_not_of_the_letters(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames[:12], "frame{}.png", first=0)
    with open_reader(folder) as reader:
        assert np.array_equal(reader.frames(range(12)), tiny_frames[:12])


def test_pictures_without_times_are_shown_25_a_second_and_have_parts(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames[:10])
    with open_reader(folder) as reader:
        assert reader.info.frame_rate == 25.0
        assert reader.timestamps_seconds[:3].tolist() == [0.0, 0.04, 0.08]
    with open_reader(part_name(folder, 0.2, 0.32)) as part:
        assert np.array_equal(part.frames([0, 1, 2]), tiny_frames[5:8])
        assert len(part) == 3


def test_grey_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "LA", "1"):
        folder = tmp_path / mode
        folder.mkdir()
        Image.new("RGB", (8, 6), (200, 200, 200)).convert(mode).save(folder / "1.png")
        with open_reader(folder) as reader:
            assert reader.frames([0]).shape == (1, 6, 8, 3)


def test_a_template_chooses_one_of_several_series(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames[:4])
    save(folder, tiny_frames[10:13], "flow_x_{:05}.png")
    with pytest.raises(VideoReadError, match=r"two series, such as flow_x_00001\.png and img_00001\.png: keep"):
        open_reader(folder)
    for template, count in (("img_{:05}.png", 4), ("img_%05d.png", 4), ("flow_x_{}.png", 3)):
        with open_reader(folder / template) as reader:
            assert len(reader) == count
    with pytest.raises(VideoReadError, match=r"holds no picture that frame_\{:05\}\.png names"):
        open_reader(folder / "frame_{:05}.png")
    assert split_template(folder / "img_00001.png") == (folder / "img_00001.png", None)


@pytest.mark.parametrize("removed", [2, 7])
def test_a_gap_names_the_first_number_that_is_missing(tmp_path: Path, tiny_frames: Frames, removed: int) -> None:
    folder = save(tmp_path / "a", tiny_frames[:9])
    (folder / f"img_{removed:05}.png").unlink()
    (folder / "img_00008.png").unlink()
    message = rf"has no picture of number {removed}, between img_0000{removed - 1}\.png and img_"
    with pytest.raises(VideoReadError, match=message):
        open_reader(folder)


def test_a_number_that_comes_twice_and_another_size_are_named(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames[:3])
    Image.fromarray(tiny_frames[0]).save(folder / "img_3.png")
    with pytest.raises(VideoReadError, match=r"has number 3 twice, img_00003\.png and img_3\.png: keep one"):
        open_reader(folder)
    (folder / "img_3.png").unlink()
    Image.fromarray(tiny_frames[0][:20]).save(folder / "img_00002.png")
    with open_reader(folder) as reader:
        assert len(reader.frames([0, 2])) == 2
        with pytest.raises(VideoReadError, match=r"img_00002\.png has 64x20 pixels, and img_00001\.png has 64x48"):
            reader.frames([1])


def test_what_is_no_picture_and_what_has_too_many_bits_is_named(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames[:2])
    (folder / "img_00002.png").write_bytes((folder / "img_00001.png").read_bytes()[:90])
    with open_reader(folder) as reader:
        with pytest.raises(VideoReadError, match=r"img_00002\.png is a picture that cannot be read: ") as caught:
            reader.frames([1])
        assert "\n" not in str(caught.value)
        with pytest.raises(VideoReadError, match=r"frame 2 was asked of .*, which has frames 0 to 1"):
            reader.frames([2])
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep / "1.png")
    with pytest.raises(VideoReadError, match=r"1\.png has more than 8 bits a channel: write it with 8"):
        open_reader(deep)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoReadError, match="holds no numbered picture, such as img_00001"):
        PictureReader(tmp_path / "empty")
    with pytest.raises(VideoReadError, match="nowhere cannot be listed"):
        PictureReader(tmp_path / "nowhere")


def test_numbers_are_the_last_ones_of_a_name() -> None:
    numbers = {
        "img_00012.jpg": 12,
        "v1_frame_7.PNG": 7,
        "3.webp": 3,
        "cover.jpg": None,
        "clip_1.mp4": None,
        ".1.jpg": None,
    }
    for name, number in numbers.items():
        found = parse_picture(name)
        assert (found.number if found else None) == number, name


def test_the_size_of_a_folder_of_pictures_is_their_number(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "a", tiny_frames[:3])
    assert (size_of(folder), size_of(folder / "img_{:05}.png"), size_of(tmp_path / "none")) == (3, 3, -1)
    assert size_of(folder / "img_00001.png") == (folder / "img_00001.png").stat().st_size


def test_a_turned_picture_is_shown_upright(tmp_path: Path, tiny_frames: Frames) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(tiny_frames[0]).save(tmp_path / "1.png", exif=exif)
    with open_reader(tmp_path) as reader:
        assert (reader.info.width, reader.info.height) == (48, 64)
        assert np.array_equal(reader.frames([0])[0], np.rot90(tiny_frames[0], -1))


def test_pictures_are_scaled_to_a_size(tmp_path: Path, tiny_frames: Frames) -> None:
    folder = save(tmp_path / "clip", tiny_frames[:4], first=0)
    with PictureReader(folder) as reader:
        frames = reader.frames([3, 0], size=(20, 30))
    assert frames.shape == (2, 20, 30, 3)
    for frame, number in zip(frames, (3, 0), strict=True):
        wanted = Image.fromarray(tiny_frames[number]).resize((30, 20), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(frame, np.asarray(wanted))
