"""Copies among videos: planted ones are found and aligned, others are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from videomae.cli import main
from videomae.search.copies import align, find_copies
from videomae.search.frame_prints import RATE, FramePrints, content_box, frame_prints, prints_of, small_frames
from videomae.video.write import write_video

FRAME_RATE = 10.0
Frames = NDArray[np.uint8]


def scene(seed: int, num_frames: int = 60, side: int = 64) -> Frames:
    """Draw a textured background over which two blocks wander."""
    rng = np.random.default_rng(seed)
    small = rng.integers(30, 220, (6, 8, 3), dtype=np.uint8)
    back = np.asarray(Image.fromarray(small).resize((88, side), Image.Resampling.BICUBIC))
    frames = np.repeat(back[None], num_frames, axis=0).copy()
    for color in rng.integers(0, 255, (2, 3)):
        places = np.cumsum(rng.normal(0, 3, (num_frames, 2)), axis=0) + rng.integers(10, side - 20, 2)
        for frame, (y, x) in zip(frames, places.astype(int) % (side - 16), strict=True):
            frame[y : y + 16, x : x + 16] = color
    return frames


def seen(frames: Frames) -> FramePrints:
    """Return the prints of frames `[n, H, W, 3]`, five a second."""
    return prints_of(small_frames(frames.mean(axis=-1).astype(np.uint8)))


def altered(frames: Frames, *, speed: float = 1.0, start: int = 0, bar: int = 0, fade: int = 0) -> Frames:
    picked = frames[start:][(np.arange(int((len(frames) - start) / speed)) * speed).astype(int)]
    picked = np.pad(picked, ((0, 0), (bar, bar), (0, 0), (0, 0)))
    light = np.minimum(np.arange(len(picked)) / max(fade, 1e-9), 1.0)
    return np.rint(picked * light[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four different videos, and copies of the first: small, shifted, fast, with bars, faded in."""
    root = tmp_path_factory.mktemp("copies")
    for seed in range(4):
        write_video(root / f"{seed}.mp4", scene(seed), frame_rate=FRAME_RATE)
    first = scene(0)
    write_video(root / "0-small.mp4", first[:, ::2, ::2], frame_rate=FRAME_RATE, quality=34)
    write_video(root / "0-shifted.mp4", altered(first, start=12), frame_rate=FRAME_RATE)
    write_video(root / "0-fast.mp4", altered(first, speed=1.1, bar=10, fade=6), frame_rate=FRAME_RATE, quality=30)
    return root


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What `videomae dedupe` says of the folder, by the names of each pair."""
    out = tmp_path_factory.mktemp("out") / "copies.json"
    assert main(["dedupe", str(folder), "--out", str(out), "--workers", "1"]) == 1
    pairs = json.loads(out.read_text())["pairs"]
    return {f"{Path(one['one']).stem} {Path(one['other']).stem}": one for one in pairs}


def test_all_copies_are_found_and_nothing_else(found: dict[str, dict[str, float]]) -> None:
    # Files come in order of their names: 0-fast, 0-shifted, 0-small, 0, 1, 2, 3.
    names = ["0-fast", "0-shifted", "0-small", "0"]
    assert set(found) == {f"{one} {other}" for n, one in enumerate(names) for other in names[n + 1 :]}


def test_offsets_and_speeds_are_told(found: dict[str, dict[str, float]]) -> None:
    shifted = found["0-shifted 0"]  # second t of the copy is second t + 1.2 of the original
    assert (shifted["offset"], shifted["speed"]) == (pytest.approx(1.2, abs=0.25), pytest.approx(1.0, abs=0.026))
    fast = found["0-fast 0"]
    assert (fast["offset"], fast["speed"]) == (pytest.approx(0.0, abs=0.4), pytest.approx(1.1, abs=0.06))
    assert fast["overlap"] > 4.5


def test_a_part_of_two_seconds_in_the_middle_is_aligned() -> None:
    frames = scene(5)
    found = align(seen(frames[20:40]), seen(frames)) or pytest.fail("not found")
    assert (found.speed, found.shift, found.overlap) == (pytest.approx(1.0), pytest.approx(20, abs=0.2), 20)
    assert found.score > 0.9


def test_different_takes_of_a_still_camera_are_no_copies() -> None:
    back = scene(6)[0]
    takes = []
    for seed in (1, 2):  # the same background, other movement
        frames = np.repeat(back[None], 60, axis=0).copy()
        places = np.random.default_rng(seed).integers(0, 48, (60, 2))
        for frame, (y, x) in zip(frames, places, strict=True):
            frame[y : y + 12, x : x + 12] = 255
        takes.append(seen(frames))
    assert list(find_copies(takes)) == []


def far_object(path: np.ndarray, *, light: float = 0.0, noise: int = 0) -> Frames:
    """Draw a still scene in which two pixels move along a path, with noise as of coarse compression."""
    frames = np.repeat(scene(6, 1), len(path), axis=0).astype(int)
    for frame, (y, x) in zip(frames, path, strict=True):
        frame[y : y + 2, x : x + 2] = 250
    grain = np.random.default_rng(noise).normal(0, 1.5, frames.shape)
    return np.clip(np.rint(frames * (1 + light) + grain), 0, 255).astype(np.uint8)


def test_an_object_of_two_pixels_tells_two_takes_of_a_still_scene_apart() -> None:
    steps = np.random.default_rng(3).integers(4, 56, (2, 60, 2))
    take, copy, other = (far_object(steps[n], noise=k) for n, k in ((0, 1), (0, 2), (1, 3)))
    found = align(seen(take[10:]), seen(copy)) or pytest.fail("not found")
    assert found.shift == pytest.approx(10, abs=0.3)
    assert found.score > 0.5
    assert align(seen(take), seen(other)) is None


def test_still_scenes_are_copies_unless_the_light_has_changed() -> None:
    nothing = np.zeros((40, 2), int)
    take, copy, later = (far_object(nothing, light=light, noise=k) for light, k in ((0.0, 1), (0.0, 2), (0.1, 3)))
    found = align(seen(take), seen(copy)) or pytest.fail("not found")
    assert found.is_still
    assert 0.1 < found.score <= 0.2  # below all in which something moves
    assert align(seen(take), seen(later)) is None


def test_one_great_change_in_both_makes_no_copies_of_two_takes() -> None:
    # As where a thermal camera adjusts itself: for half a second all is another picture, the same in both.
    steps = np.random.default_rng(3).integers(4, 56, (2, 60, 2))
    take, copy, other = (far_object(steps[n], noise=k) for n, k in ((0, 1), (0, 2), (1, 3)))
    for frames in (take, copy, other):
        frames[30:33] = 255 - frames[30:33]
    found = align(seen(take), seen(copy)) or pytest.fail("not found")
    assert (found.is_still, found.score > 0.9) == (False, True)
    one, two = seen(take).changes, seen(other).changes
    assert (one * two).sum() / np.sqrt(np.square(one).sum() * np.square(two).sum()) > 0.9  # by this they were copies
    assert align(seen(take), seen(other)) is None


def test_black_frames_show_nothing_and_a_black_video_is_no_copy_of_another() -> None:
    black = prints_of(np.zeros((40, 32, 32), np.uint8))
    assert not black.values.any()
    assert not black.changes.any()
    assert list(find_copies([black, black])) == []


def test_a_fade_is_no_change_and_its_darkest_frames_show_nothing() -> None:
    frames = np.repeat(scene(7, 1), 40, axis=0)
    prints = seen(altered(frames, fade=10))
    assert not prints.values[:2].any()
    assert prints.values[4:].any(axis=1).all()
    assert np.square(prints.changes).sum(axis=1).mean() < 0.01


def test_bars_are_cut_from_what_is_compared(folder: Path) -> None:
    frames = altered(scene(0), bar=10).mean(axis=-1).astype(np.uint8)
    assert content_box(frames) == (10 / 84, 74 / 84, 0.0, 1.0)
    whole, barred = seen(scene(0)), prints_of(small_frames(frames, content_box(frames)))
    assert np.abs(whole.coarse - barred.coarse)[1:].max() < 0.1  # the first is black where nothing fades, too
    prints = frame_prints(folder / "0-fast.mp4")
    assert prints.seconds == pytest.approx(54 / 1.1 / FRAME_RATE, abs=1.0)
    assert prints.values.shape == (round(prints.seconds * RATE), 143)


def test_dedupe_names_what_it_cannot_read_and_needs_two_videos(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing that decodes")
    assert main(["dedupe", str(folder / "1.mp4"), str(folder / "2.mp4"), str(tmp_path / "bad.mp4")]) == 2
    captured = capsys.readouterr()
    assert "bad.mp4" in captured.err
    assert captured.out == "no two of 2 videos show the same\n"
    assert main(["dedupe", str(folder / "1.mp4")]) == 2
    assert "dedupe compares videos and is given 1: give a folder of them" in capsys.readouterr().err
    assert main(["dedupe", str(folder), "--out", "x.txt"]) == 2
    assert "its name must end with .html or .json" in capsys.readouterr().err
