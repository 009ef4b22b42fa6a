"""Claims about the motion videos: no frame tells the class, the whole clip does, and files are what was drawn.

Both halves can fail: the same classifiers that find nothing in single frames find a planted leak, and the same
motion measure that reads the clips is at chance once their frames are shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from videomae.data.scan import scan_labelled
from videomae.data.synthetic import MOTION_CLASSES, motion_frames, write_motion_videos
from videomae.errors import ConfigError, ManifestError
from videomae.video.decode import VideoReader

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

PER_CLASS, SIZE, NUM_FRAMES = 40, 32, 24
NUM_CLASSES = len(MOTION_CLASSES)
NUM_TEST = PER_CLASS * NUM_CLASSES // 2


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frames, Labels]:
    """Decoded videos `[n, T, H, W, 3]` and their labels; even and odd ones are halves of equal classes."""
    folder = tmp_path_factory.mktemp("motion")
    write_motion_videos(folder, videos_per_class=PER_CLASS, size=SIZE, num_frames=NUM_FRAMES, seed=1)
    videos, labels = [], []
    for row in scan_labelled(folder).rows:
        with VideoReader(row.path) as reader:
            videos.append(reader.frames(range(len(reader))))
        labels.append(row.label)
    return np.stack(videos), np.asarray(labels, np.int64)


def chance_bound(num_trials: int, *, one_in: float) -> int:
    """Smallest number of hits that guessing among the classes reaches less often than once in `one_in` tries."""
    p = 1 / NUM_CLASSES
    tail = 0.0
    for hits in range(num_trials, -1, -1):
        tail += comb(num_trials, hits) * p**hits * (1 - p) ** (num_trials - hits)
        if tail > 1 / one_in:
            return hits + 1
    return 0


def colour_mean_and_deviation(frames: Frames) -> Floats:
    return np.concatenate([frames.mean((1, 2)), frames.std((1, 2))], axis=1)


def colour_histogram(frames: Frames) -> Floats:
    bins = (frames // 32)[..., None] == np.arange(8)  # [n, H, W, 3, 8]
    return bins.mean((1, 2)).reshape(len(frames), -1)


def thumbnail(frames: Frames) -> Floats:
    n, height, width, _ = frames.shape
    return frames.reshape(n, 8, height // 8, 8, width // 8, 3).mean((2, 4)).reshape(n, -1)


def place_of_the_sprite(frames: Frames) -> Floats:
    """Sine and cosine of the mean place, around the torus, of what differs from the frame's mean colour."""
    weight = np.abs(frames - frames.mean((1, 2), keepdims=True)).sum(3) ** 2  # [n, H, W]
    turn = np.exp(2j * np.pi * np.arange(frames.shape[1]) / frames.shape[1])
    along, down = (weight.sum(1) @ turn) / weight.sum((1, 2)), (weight.sum(2) @ turn) / weight.sum((1, 2))
    return np.stack([along.real, along.imag, down.real, down.imag], axis=1)


FEATURES = (colour_mean_and_deviation, colour_histogram, thumbnail, place_of_the_sprite)


def nearest_mean(train: Floats, labels: Labels, test: Floats) -> Labels:
    means = np.stack([train[labels == k].mean(0) for k in range(NUM_CLASSES)])
    return np.argmin(((test[:, None] - means) ** 2).sum(2), axis=1)


def five_neighbours(train: Floats, labels: Labels, test: Floats) -> Labels:
    near = np.argsort(((test[:, None] - train) ** 2).sum(2), axis=1)[:, :5]
    return np.argmax((labels[near][..., None] == np.arange(NUM_CLASSES)).sum(1), axis=1)


def least_squares(train: Floats, labels: Labels, test: Floats) -> Labels:
    targets = np.eye(NUM_CLASSES)[labels] - 1 / NUM_CLASSES
    gram = train.T @ train + 1e-2 * len(train) * np.eye(train.shape[1])
    return np.argmax(test @ np.linalg.solve(gram, train.T @ targets), axis=1)


CLASSIFIERS = (nearest_mean, five_neighbours, least_squares)


def hits(features: Floats, labels: Labels, classify: Callable[[Floats, Labels, Floats], Labels]) -> int:
    """Train on the even half, count right answers on the odd half; features are standardised on the former."""
    train, test = features[0::2], features[1::2]
    mean, deviation = train.mean(0), train.std(0) + 1e-9
    answers = classify((train - mean) / deviation, labels[0::2], (test - mean) / deviation)
    return int((answers == labels[1::2]).sum())


def single_frame_hits(videos: Frames, labels: Labels) -> Iterator[tuple[str, int]]:
    """Hits of every classifier on every feature of a frame at the beginning, in the middle and at the end."""
    for time in (0, NUM_FRAMES // 2 + 1, NUM_FRAMES - 1):
        for feature in FEATURES:
            values = feature(videos[:, time])
            for classify in CLASSIFIERS:
                yield f"{classify.__name__} of {feature.__name__} at {time}", hits(values, labels, classify)


def motion(videos: Frames, *, step: int = 3) -> Floats:
    """Moments of the displacements from frame to frame, each the peak of a correlation over the torus."""
    base = np.median(videos, axis=(2, 3), keepdims=True)
    vivid = (np.abs(videos - base).max(4) > 90).astype(np.float64)  # [n, T, H, W]: sprites, not background
    spectrum = np.fft.fft2(vivid)
    size = videos.shape[2]
    correlation = np.fft.ifft2(spectrum[:, step:] * spectrum[:, :-step].conj()).real  # [n, T - step, H, W]
    peak = correlation.reshape(*correlation.shape[:2], -1).argmax(2)
    y, x = ((place + size // 2) % size - size // 2 for place in np.divmod(peak, size))
    turn = x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]  # positive: clockwise on the screen
    return np.stack([x.mean(1), y.mean(1), x.std(1), y.std(1), turn.mean(1)], axis=1)


# 36 looks at single frames; the bound is passed by chance less than once in 1000 such tests.
LOOKS = 3 * len(FEATURES) * len(CLASSIFIERS)
FRAME_BOUND = chance_bound(NUM_TEST, one_in=1000 * LOOKS)


@pytest.mark.slow
def test_no_single_frame_tells_the_class(clips: tuple[Frames, Labels]) -> None:
    found = list(single_frame_hits(*clips))
    assert len(found) == LOOKS == 36
    assert FRAME_BOUND <= 0.25 * NUM_TEST  # not far above chance, 0.125
    assert {name: count for name, count in found if count >= FRAME_BOUND} == {}
    # All looks together are near chance too: their mean has at most the deviation of a single one.
    deviation = (NUM_TEST * (1 / NUM_CLASSES) * (1 - 1 / NUM_CLASSES)) ** 0.5
    assert abs(np.mean([count for _, count in found]) - NUM_TEST / NUM_CLASSES) < 3 * deviation


@pytest.mark.slow
@pytest.mark.parametrize("leak", ["brightness", "place"])
def test_a_planted_leak_would_be_found(clips: tuple[Frames, Labels], leak: str) -> None:
    videos, labels = clips[0].copy(), clips[1]
    if leak == "brightness":  # what a class with larger or brighter sprites would do
        videos = np.clip(videos.astype(np.int64) + 12 * labels[:, None, None, None, None], 0, 255).astype(np.uint8)
    else:  # what paths with a start that depends on the class would do
        stage = np.full_like(videos, 128)
        for video, scene, label in zip(videos, stage, labels, strict=True):
            row, column = divmod(int(label), 4)
            scene[:, 16 * row : 16 * row + 8, 8 * column : 8 * column + 8] = video[:, :8, :8]
        videos = stage
    assert max(count for _, count in single_frame_hits(videos, labels)) >= FRAME_BOUND


@pytest.mark.slow
def test_the_whole_clip_tells_the_class_by_motion(clips: tuple[Frames, Labels]) -> None:
    videos, labels = clips
    assert hits(motion(videos), labels, five_neighbours) > 0.85 * NUM_TEST  # chance: 0.125


@pytest.mark.slow
def test_shuffled_in_time_the_clip_tells_directions_no_more(clips: tuple[Frames, Labels]) -> None:
    videos, labels = clips
    rng = np.random.default_rng(0)
    shuffled = np.stack([video[rng.permutation(NUM_FRAMES)] for video in videos])
    for pair in (("left", "right"), ("up", "down"), ("clockwise", "counterclockwise")):
        first, second = (MOTION_CLASSES.index(name) for name in pair)
        chosen = np.isin(labels, (first, second))
        binary = (labels[chosen] == second).astype(np.int64)
        ordered_hits, shuffled_hits = (
            hits(motion(frames[chosen]), np.where(binary, second, first), five_neighbours)
            for frames in (videos, shuffled)
        )
        assert ordered_hits >= 34, pair  # of 40; guessing reaches that once in 100 000 tries
        assert shuffled_hits < 34, pair


@pytest.mark.parametrize("seed", range(3))
def test_frame_0_of_all_classes_is_the_same_frame_for_one_generator_state(seed: int) -> None:
    videos = [motion_frames(name, size=48, num_frames=5, rng=np.random.default_rng(seed)) for name in MOTION_CLASSES]
    assert all(np.array_equal(videos[0][0], video[0]) for video in videos)
    assert len({video[4].tobytes() for video in videos}) == NUM_CLASSES


def test_sprites_move_as_their_class_says() -> None:
    for name, (dx, dy) in {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}.items():
        moments = motion(np.stack([draw(name, seed) for seed in range(12)]))
        assert np.median(np.sign(moments[:, 0])) == dx, name
        assert np.median(np.sign(moments[:, 1])) == dy, name
    for name, sign in {"clockwise": 1, "counterclockwise": -1}.items():
        moments = motion(np.stack([draw(name, seed) for seed in range(12)]))
        assert np.median(np.sign(moments[:, 4])) == sign, name
    for name, still in {"horizontal_shake": 3, "vertical_shake": 2}.items():
        moments = motion(np.stack([draw(name, seed) for seed in range(12)]))
        assert np.median(moments[:, still]) < 0.5 < np.median(moments[:, 5 - still]), name


def draw(name: str, seed: int) -> Frames:
    return motion_frames(name, size=SIZE, num_frames=NUM_FRAMES, rng=np.random.default_rng(seed))


def test_a_video_is_a_function_of_seed_class_and_number(tmp_path: Path) -> None:
    few, many, other = tmp_path / "few", tmp_path / "many", tmp_path / "other"
    write_motion_videos(few, videos_per_class=1, size=32, num_frames=4, seed=5)
    write_motion_videos(many, videos_per_class=2, size=32, num_frames=4, seed=5)
    write_motion_videos(other, videos_per_class=1, size=32, num_frames=4, seed=6)
    for name in MOTION_CLASSES:
        path = f"{name}/{name}_0000.mp4"
        assert (few / path).read_bytes() == (many / path).read_bytes()
        assert (few / path).read_bytes() != (other / path).read_bytes()
    everything = {row.path.read_bytes() for row in scan_labelled(many).rows}
    assert len(everything) == 2 * NUM_CLASSES


def test_files_are_a_labelled_data_set_close_to_what_was_drawn(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_motion_videos(
        tmp_path / "new" / "folder",
        videos_per_class=2,
        size=48,
        num_frames=7,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    manifest = scan_labelled(tmp_path / "new" / "folder")
    assert calls == [(i + 1, 2 * NUM_CLASSES) for i in range(2 * NUM_CLASSES)]
    assert manifest.classes == MOTION_CLASSES
    assert [row.label for row in manifest.rows] == sorted(2 * list(range(NUM_CLASSES)))
    for row in manifest.rows:
        with VideoReader(row.path) as reader:
            assert len(reader) == 7
            frames = reader.frames(range(7))
        assert frames.shape == (7, 48, 48, 3)
        assert frames.std() > 20  # there is something to see


def test_sprites_are_large_and_stand_out() -> None:
    shares = []
    for seed in range(20):
        frames = draw("right", seed).astype(np.int64)
        rival = draw("left", seed).astype(np.int64)
        # The background is equal in both: what differs in the last frame is covered by a sprite in one of them.
        shares.append((np.abs(frames[-1] - rival[-1]).max(2) > 60).mean())
    assert 0.1 < np.median(shares) < 0.6


def test_writing_again_completes_a_set_and_a_strangers_video_is_refused(tmp_path: Path) -> None:
    write_motion_videos(tmp_path, videos_per_class=2, size=16, num_frames=2)
    write_motion_videos(tmp_path, videos_per_class=2, size=16, num_frames=2)
    (tmp_path / "notes.txt").write_text("other files do not matter")
    with pytest.raises(ManifestError, match=r"already holds another video, clockwise/clockwise_0001\.mp4: choose"):
        write_motion_videos(tmp_path, videos_per_class=1, size=16, num_frames=2)
    assert len(scan_labelled(tmp_path).rows) == 2 * NUM_CLASSES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"videos_per_class": 0}, "videos_per_class is 0; it must be at least 1"),
        ({"videos_per_class": 1, "size": 63}, "size is 63 pixels; .* even size of at least 16"),
        ({"videos_per_class": 1, "size": 8}, "size is 8 pixels; .* even size of at least 16"),
        ({"videos_per_class": 1, "num_frames": 0}, "num_frames is 0; a video has at least 1 frame"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_motion_videos(tmp_path, **settings)


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="motion class 'diagonal' is unknown: use one of clockwise, counter"):
        motion_frames("diagonal", size=32, num_frames=4, rng=np.random.default_rng(0))


def test_a_few_pixels_and_one_frame_are_enough() -> None:
    frames = motion_frames("up", size=16, num_frames=1, rng=np.random.default_rng(0))
    assert frames.shape == (1, 16, 16, 3)
    assert frames.min() < frames.max()
