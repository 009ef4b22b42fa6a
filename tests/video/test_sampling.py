"""Sampling: the published rules, on the published numbers and on every short video."""

import json
from pathlib import Path

import numpy as np
import pytest

from videomae.errors import ConfigError
from videomae.video.sampling import (
    ClipConfig,
    centre_clip,
    crop_views,
    finetuning_clip,
    pretraining_clip,
    sliding_clips,
    view_clips,
)

GOLDEN_VIEWS = json.loads((Path(__file__).parents[1] / "golden" / "test_views.json").read_text())
DENSE = ClipConfig(num_frames=16, stride=4, kind="dense")
ORIGINAL = ClipConfig(num_frames=16, stride=4, kind="original")
SEGMENT = ClipConfig(num_frames=16, kind="segment")


def golden_cases(protocol: str) -> list[tuple[str, list[dict]]]:
    return list(GOLDEN_VIEWS[protocol].items())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("protocol", "clip", "num_views"), [("dense_16x4_5x3", ORIGINAL, 5), ("segment_16_2x3", SEGMENT, 2)]
)
def test_views_and_crops_equal_the_published_protocols(protocol, clip, num_views):
    cases = golden_cases(protocol)
    checked = 0
    for key, views in cases:
        total, height, width = (int(number) for number in key.split("x"))
        clips = view_clips(total, clip, num_views=num_views)
        crops = crop_views(height, width, size=224, num_crops=3)
        for view in views:
            assert clips[view["chunk"]].tolist() == view["frames"], key
            offset = crops[view["split"]]
            moving, other = (offset.top, offset.left) if view["axis"] == "height" else (offset.left, offset.top)
            assert (moving, other) == (view["start"], 0), key
            checked += 1
    assert (len(cases), checked) == {"dense_16x4_5x3": (6, 90), "segment_16_2x3": (5, 30)}[protocol]


@pytest.mark.parametrize(
    ("draw", "clip"),
    [
        (lambda n, clip: pretraining_clip(n, clip, rng=rng(n)), DENSE),
        (lambda n, clip: pretraining_clip(n, clip, rng=rng(n)), SEGMENT),
        (lambda n, clip: finetuning_clip(n, clip, rng=rng(n)), DENSE),
        (lambda n, clip: finetuning_clip(n, clip, rng=rng(n)), SEGMENT),
        (lambda n, clip: pretraining_clip(n, clip, rng=rng(n)), ORIGINAL),
        (lambda n, clip: finetuning_clip(n, clip, rng=rng(n)), ORIGINAL),
        (lambda n, clip: view_clips(n, clip, num_views=5), ORIGINAL),
        (lambda n, clip: centre_clip(n, clip), ORIGINAL),
        (lambda n, clip: centre_clip(n, clip), DENSE),
        (lambda n, clip: centre_clip(n, clip), SEGMENT),
        (lambda n, clip: view_clips(n, clip, num_views=1), DENSE),
        (lambda n, clip: view_clips(n, clip, num_views=5), DENSE),
        (lambda n, clip: view_clips(n, clip, num_views=3), SEGMENT),
        (lambda n, clip: sliding_clips(n, clip, step_frames=7), DENSE),
    ],
)
@pytest.mark.parametrize(("num_frames", "stride"), [(16, 4), (16, 1), (8, 3), (1, 1), (2, 30)])
def test_every_clip_of_every_length_is_ascending_and_inside_the_video(draw, clip, num_frames, stride):
    clip = ClipConfig(num_frames, stride, clip.kind)
    for total in range(1, 200):
        frames = draw(total, clip)
        assert frames.dtype == np.int64
        assert frames.shape[-1] == num_frames
        assert frames.min() >= 0
        assert frames.max() < total
        assert (np.diff(frames, axis=-1) >= 0).all()


def test_pretraining_clip_follows_the_pointer_of_the_original_for_every_start():
    """The rule as the reference states it: one-based pointer, advanced while pointer + stride < n."""
    for total in range(1, 120):
        for clip in (ORIGINAL, ClipConfig(16, 2, "original"), ClipConfig(16, 1, "original")):
            frames = pretraining_clip(total, clip, rng=rng(total))
            pointer, expected = int(frames[0]) + 1, []
            for _ in range(clip.num_frames):
                expected.append(pointer - 1)
                pointer += clip.stride if pointer + clip.stride < total else 0
            assert frames.tolist() == expected, (total, clip)


def test_a_dense_clip_has_its_stride_to_the_frame_and_repeats_the_last_frame_on_it():
    for draw in (pretraining_clip, finetuning_clip):
        for total in range(1, 130):
            frames = draw(total, DENSE, rng=rng(total))
            start = int(frames[0])
            assert start == 0 or total > DENSE.span
            last = start + (total - 1 - start) // 4 * 4
            assert frames.tolist() == [min(start + 4 * number, last) for number in range(16)]
    # In the original the step onto the very last frame is not taken.
    assert pretraining_clip(37, DENSE, rng=rng()).tolist() == [*range(0, 37, 4), *[36] * 6]
    assert pretraining_clip(37, ORIGINAL, rng=rng()).tolist() == [*range(0, 33, 4), *[32] * 7]


def test_pretraining_clip_of_the_original_repeats_the_last_reachable_frame_of_a_short_video():
    assert pretraining_clip(40, ORIGINAL, rng=rng()).tolist() == [*range(0, 37, 4), *[36] * 6]
    assert pretraining_clip(64, ORIGINAL, rng=rng()).tolist() == list(range(0, 61, 4))


def test_pretraining_clip_starts_anywhere_that_the_whole_clip_fits():
    generator = rng()
    for clip, num_starts in ((DENSE, 10), (ORIGINAL, 7)):  # a clip of 61 frames; the original asks for 64
        starts = {int(pretraining_clip(70, clip, rng=generator)[0]) for _ in range(300)}
        assert starts == set(range(num_starts))


def test_finetuning_clip_of_a_short_video_equals_the_published_example():
    assert finetuning_clip(40, ORIGINAL, rng=rng()).tolist() == [0, 4, 8, 13, 17, 22, 26, 31, 35, *[39] * 7]
    assert finetuning_clip(10, ORIGINAL, rng=rng()).tolist() == [0, *[9] * 15]


def test_finetuning_clip_spreads_over_the_whole_window_at_stride_64_fifteenths():
    offsets = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    generator, starts = rng(), set()
    for _ in range(300):
        frames = finetuning_clip(70, ORIGINAL, rng=generator)
        assert (frames - frames[0]).tolist() == offsets
        starts.add(int(frames[0]))
    assert starts == set(range(6))  # ends 64..69, so the very last start is never drawn


def test_centre_clip_lies_in_the_middle():
    assert centre_clip(100, DENSE).tolist() == list(range(19, 80, 4))  # 19 frames before it, 20 behind
    assert centre_clip(20, DENSE).tolist() == [0, 4, 8, 12, *[16] * 12]
    assert centre_clip(100, ORIGINAL)[0] == 18
    assert centre_clip(100, ORIGINAL)[-1] == 81
    assert centre_clip(20, ORIGINAL).tolist() == [0, 5, 10, 15, *[19] * 12]
    assert centre_clip(320, SEGMENT).tolist() == [20 * segment + 10 for segment in range(16)]


def test_segment_clip_takes_one_frame_of_each_segment():
    generator, seen = rng(), set()
    for _ in range(200):
        frames = finetuning_clip(50, SEGMENT, rng=generator)
        assert (frames // 3).tolist() == list(range(16))
        seen.update(frames.tolist())
    assert seen == set(range(48))


def test_segment_clip_of_a_short_video_shows_every_frame():
    assert finetuning_clip(5, SEGMENT, rng=rng()).tolist() == [0] * 11 + [0, 1, 2, 3, 4]


def test_the_same_generator_state_draws_the_same_clip():
    for draw in (pretraining_clip, finetuning_clip):
        for clip in (DENSE, SEGMENT):
            assert draw(300, clip, rng=rng(5)).tolist() == draw(300, clip, rng=rng(5)).tolist()


def test_dense_views_reach_from_the_first_frame_to_the_last():
    views = view_clips(300, DENSE, num_views=5)
    assert views[:, 0].tolist() == [0, 60, 120, 179, 239]
    assert views[-1].tolist() == list(range(239, 300, 4))
    assert (np.diff(views, axis=1) == 4).all()
    assert view_clips(10, DENSE, num_views=3).tolist() == [[0, 4, *[8] * 14]] * 3


def test_a_single_view_starts_at_the_first_frame():
    assert view_clips(300, DENSE, num_views=1).tolist() == [list(range(0, 61, 4))]
    assert view_clips(32, SEGMENT, num_views=1).tolist() == [list(range(0, 32, 2))]


def test_sliding_clips_cover_every_stretch_of_the_video_to_its_last_frame():
    clips = sliding_clips(100, ClipConfig(4, 5), step_frames=10)
    assert clips[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 84]
    assert clips[-1].tolist() == [84, 89, 94, 99]
    assert sliding_clips(96, ClipConfig(4, 5), step_frames=10)[:, 0].tolist() == list(range(0, 81, 10))


def test_sliding_clips_of_a_short_video_are_one_clip_that_repeats_its_end():
    assert sliding_clips(12, ClipConfig(4, 5), step_frames=10).tolist() == [[0, 5, 10, 10]]
    assert sliding_clips(1, ClipConfig(4, 5), step_frames=10).tolist() == [[0, 0, 0, 0]]


def test_sliding_clips_refuse_segments():
    with pytest.raises(ConfigError, match=r"clip.kind is 'segment'.*use clip.kind dense"):
        sliding_clips(100, SEGMENT, step_frames=10)


def test_one_crop_is_the_centre():
    assert crop_views(240, 320, size=224, num_crops=1) == ((8, 48),)
    assert crop_views(320, 240, size=224, num_crops=1) == ((48, 8),)


def test_crops_of_a_larger_frame_are_centred_on_the_shorter_side():
    assert crop_views(256, 340, size=224, num_crops=3) == ((16, 0), (16, 58), (16, 116))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 0}, "clip.num_frames is 0; it is a number of frames, at least 1"),
        ({"stride": -4}, "clip.stride is -4; it is a number of frames, at least 1"),
        ({"kind": "sparse"}, "clip.kind is 'sparse'; it is 'dense', 'segment' or 'original'"),
    ],
)
def test_contradictory_clip_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ClipConfig(**values)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="total_frames is 0; a clip needs a video of at least 1 frame"):
        centre_clip(0, DENSE)
    with pytest.raises(ValueError, match="num_views is 0"):
        view_clips(10, DENSE, num_views=0)
    with pytest.raises(ValueError, match="step_frames is 0"):
        sliding_clips(10, DENSE, step_frames=0)
    with pytest.raises(ValueError, match="320x200, smaller than the crop of 224x224"):
        crop_views(200, 320, size=224, num_crops=3)
    with pytest.raises(ValueError, match="num_crops is 0"):
        crop_views(224, 320, size=224, num_crops=0)
