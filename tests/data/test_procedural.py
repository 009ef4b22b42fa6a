"""Procedural videos: what a clip depends on, what it does not, and that things move."""

from __future__ import annotations

import pytest
import torch

from videomae.data.procedural import MAX_DRAWS, NUM_TEXTURES, ProceduralVideos, _Draws, hash_uniforms
from videomae.data.procedural_banks import shape_bank, texture_bank
from videomae.errors import ConfigError


@pytest.fixture(scope="module")
def videos() -> ProceduralVideos:
    return ProceduralVideos(0, num_frames=4, size=32)


def test_clips_are_uint8_of_the_size_that_was_asked_for(videos: ProceduralVideos) -> None:
    clips = videos.clips(torch.arange(2))
    assert clips.dtype == torch.uint8
    assert clips.shape == (2, 4, 3, 32, 32)


def test_a_clip_depends_on_its_index_alone_and_not_on_its_batch(videos: ProceduralVideos) -> None:
    together = videos.clips(torch.tensor([7, 3, 1 << 40]))
    alone = torch.cat([videos.clips(torch.tensor([index])) for index in (7, 3, 1 << 40)])
    assert (together.int() - alone.int()).abs().max() <= 1  # float32 rounds differently in vectors of another length


def test_another_process_draws_the_same_clip(videos: ProceduralVideos) -> None:
    again = ProceduralVideos(0, num_frames=4, size=32)
    assert torch.equal(again.clips(torch.tensor([5])), videos.clips(torch.tensor([5])))


def test_another_index_or_seed_gives_another_clip(videos: ProceduralVideos) -> None:
    clips = videos.clips(torch.arange(6)).float()
    for first in range(6):
        for second in range(first):
            assert (clips[first] - clips[second]).abs().mean() > 3.0
    other = ProceduralVideos(1, num_frames=4, size=32).clips(torch.tensor([0])).float()
    assert (other[0] - clips[0]).abs().mean() > 3.0


def test_most_clips_move_and_every_clip_has_texture(videos: ProceduralVideos) -> None:
    clips = videos.clips(torch.arange(48)).float()
    change = (clips[:, 1:] - clips[:, :-1]).abs().mean(dim=(1, 2, 3, 4))
    assert (change > 1.0).float().mean() > 0.8
    assert (clips.std(dim=(1, 3, 4)).amax(dim=1) > 4.0).all()


def test_clips_use_the_whole_range_of_brightness_and_both_color_and_grey(videos: ProceduralVideos) -> None:
    clips = videos.clips(torch.arange(48)).float()
    brightness = clips.mean(dim=(1, 2, 3, 4))
    assert brightness.min() < 90
    assert brightness.max() > 160
    colorfulness = clips.std(dim=2).mean(dim=(1, 2, 3))
    assert (colorfulness < 1.0).any()
    assert (colorfulness > 20.0).any()


def test_uniform_numbers_are_uniform_independent_and_recorded() -> None:
    numbers = hash_uniforms(12345, torch.arange(2000), 64)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert abs(float(numbers.mean()) - 0.5) < 0.005
    assert (numbers.var(dim=0) - 1 / 12).abs().max() < 0.01
    correlation = torch.corrcoef(numbers.T) - torch.eye(64)
    assert correlation.abs().max() < 0.12  # 2,000 samples: 0.022 is one standard error, of 2,016 pairs
    # Golden: a clip must stay the same in every later version.
    assert hash_uniforms(7, torch.tensor([0, 1, -1]), 2).tolist() == [
        [0.5243459343910217, 0.3021389842033386],
        [0.7215081453323364, 0.6497042775154114],
        [0.43043744564056396, 0.33404403924942017],
    ]


@pytest.mark.parametrize("num_frames", [1, 32, 600])
def test_a_clip_of_any_length_draws_fewer_numbers_than_it_may(num_frames: int) -> None:
    clips = ProceduralVideos(0, num_frames=num_frames, size=16).clips(torch.arange(1))
    assert clips.shape == (1, num_frames, 3, 16, 16)  # an assertion in the draws fails where MAX_DRAWS is too small
    assert MAX_DRAWS >= 320


@pytest.mark.parametrize("size", [254, 256, 258, 400])
def test_large_frames_have_noise_of_their_own_in_every_frame(size: int) -> None:
    videos = ProceduralVideos(0, num_frames=3, size=size)
    noise = torch.zeros(8, 3, 3, size, size)
    for index in range(8):  # the noise alone: black frames stay black under any light
        draws = _Draws(hash_uniforms(videos.key, torch.tensor([index]), MAX_DRAWS + 3))
        videos._light(noise[index : index + 1], draws, torch.arange(3.0), torch.zeros(size))
    noisy = noise[noise.flatten(1).std(dim=1) > 0][:, 0]  # [n, T, S, S]: six in ten clips have some
    assert len(noisy) >= 2
    for clip in noisy:
        assert torch.corrcoef(clip.flatten(1)).fill_diagonal_(0).abs().max() < 0.9


def test_banks_hold_finite_values_in_range_and_no_two_are_alike() -> None:
    textures = texture_bank(0, NUM_TEXTURES)
    assert torch.isfinite(textures).all()
    assert textures.abs().max() <= 1.0
    flat = textures[:40].flatten(1)
    assert (torch.corrcoef(flat) - torch.eye(40)).abs().max() < 0.9
    shapes = shape_bank(0, 40)
    assert torch.isfinite(shapes).all()
    inside = (shapes < 0).float().mean(dim=(1, 2, 3))
    assert (inside > 0.02).all()
    border = torch.cat([shapes[..., 0, :], shapes[..., -1, :], shapes[..., 0], shapes[..., -1]], dim=-1)
    assert (border > 0).all()  # outside the bank's square a shape is not there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0, "size": 64}, "num_frames is 0; a procedural video has at least 1 frame"),
        ({"num_frames": 4, "size": 8}, "size is 8 pixels; procedural videos need at least 16"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProceduralVideos(0, **settings)
