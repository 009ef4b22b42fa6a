"""Blank, still, repeated and disordered clips are seen, and sound ones are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from videomae.data.synthetic import MOTION_CLASSES, motion_frames
from videomae.monitor.data_checks import data_statistics, equal_file_fraction


@pytest.fixture(scope="module")
def motion() -> Tensor:
    """`[16, 8, 3, 32, 32]` uint8 clips of synthetic motion, every second frame."""
    clips = []
    for number in range(16):
        name = MOTION_CLASSES[number % len(MOTION_CLASSES)]
        frames = motion_frames(name, size=32, num_frames=16, rng=np.random.default_rng(number))[::2]
        clips.append(torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))))
    return torch.stack(clips)


def test_sound_clips_have_no_fault(motion: Tensor) -> None:
    found = data_statistics(motion, [])
    assert (found.blank, found.still, found.twins, found.equal_files) == (0.0, 0.0, 0.0, 0.0)
    assert found.order is not None
    assert found.order < 0.85


def test_clips_of_one_color_are_blank_and_not_twins(motion: Tensor) -> None:
    clips = motion.clone()
    clips[:4] = 0
    found = data_statistics(clips, [])
    assert found.blank == 0.25
    assert found.still == found.twins == 0.0


def test_clips_that_repeat_a_frame_are_still(motion: Tensor) -> None:
    clips = motion.clone()
    clips[:8] = clips[:8, :1]
    found = data_statistics(clips, [])
    assert found.still == 0.5
    assert found.blank == 0.0


def test_a_clip_shown_twice_is_a_twin_even_compressed_another_time(motion: Tensor) -> None:
    clips = motion.clone()
    noise = torch.randint(-2, 3, clips[:4].shape, generator=torch.Generator().manual_seed(0))
    clips[4:8] = (clips[:4].int() + noise).clamp(0, 255).to(torch.uint8)
    assert data_statistics(clips, []).twins == 0.5


def test_a_small_thing_that_moves_before_a_still_scene_is_enough() -> None:
    clips = torch.full((6, 8, 3, 64, 64), 60, dtype=torch.uint8)
    clips[:, :, :, 32:] = 200
    for number in range(6):
        for time in range(8):
            clips[number, time, :, 8 * number : 8 * number + 4, 5 + time : 9 + time] = 140
    found = data_statistics(clips, [])
    assert (found.still, found.twins) == (0.0, 0.0)


def test_shuffled_frames_are_in_no_order(motion: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([clip[torch.randperm(8, generator=generator)] for clip in motion])
    order = data_statistics(shuffled, []).order
    assert order is not None
    assert order > 0.93


def test_the_order_of_still_clips_is_not_judged(motion: Tensor) -> None:
    assert data_statistics(motion[:, :1].expand(-1, 8, -1, -1, -1), []).order is None


def test_no_clips_and_single_frames_have_statistics(motion: Tensor) -> None:
    assert data_statistics(motion[:0], []).num_clips == 0
    assert data_statistics(motion[:, :1], []).order is None


def test_equal_files_are_counted_once_each(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcde"]
    paths[0].write_bytes(b"x" * 200_000)
    shutil.copyfile(paths[0], paths[1])
    paths[2].write_bytes(b"x" * 199_999 + b"y")  # of equal size, another end
    paths[3].write_bytes(b"short")
    assert equal_file_fraction(paths) == pytest.approx(1 / 5)  # the last is not there
