"""The stream of batches, hashed: the same for any number of workers and ranks, and after a stop in the middle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.data.augment import AugmentConfig
from videomae.data.datasets import FinetuningDataset, PretrainingDataset, SampleKey
from videomae.data.device_augment import DeviceAugment
from videomae.data.loader import Batch, Shard, in_steps, steps_per_epoch, train_loader
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.data.synthetic import write_motion_videos
from videomae.errors import ConfigError
from videomae.masking import MaskConfig
from videomae.patches import TokenGrid
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig

SIZE, GLOBAL_BATCH, SEED = 32, 8, 5
CLIP = ClipConfig(num_frames=4, stride=2)
Dataset = PretrainingDataset | FinetuningDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four videos, of which one cannot be read: three batches in an epoch."""
    folder = tmp_path_factory.mktemp("stream")
    write_motion_videos(folder, videos_per_class=3, size=SIZE, num_frames=20)
    next(iter(sorted(folder.rglob("*.mp4")))).write_text("no video")
    return folder


@pytest.fixture(params=["pretraining", "finetuning"])
def dataset(request: pytest.FixtureRequest, folder: Path) -> Dataset:
    if request.param == "finetuning":
        augment = AugmentConfig("resized", flip=True)
        return FinetuningDataset(scan_labelled(folder), clip=CLIP, size=SIZE, augment=augment, seed=SEED)
    return PretrainingDataset(
        scan_unlabelled(folder),
        clip=CLIP,
        size=SIZE,
        augment=AugmentConfig(flip=True),
        mask=MaskConfig(),
        grid=TokenGrid(2, 4, 4),
        seed=SEED,
    )


def batches(
    dataset: Dataset,
    *,
    workers: int = 0,
    start: int = 0,
    total: int = 8,
    repeats: int = 1,
    rank: int = 0,
    ranks: int = 1,
) -> list[Batch]:
    groups = train_loader(
        dataset,
        batch_size=GLOBAL_BATCH,
        num_workers=workers,
        seed=SEED,
        start_step=start,
        total_steps=total,
        repeats=repeats,
        shard=Shard(rank, ranks),
    )
    steps = in_steps(groups, start_step=start, repeats=repeats)
    return [batch for _, batch in zip(range(total - start), steps, strict=False)]


def sample_hashes(batch: Batch) -> list[str]:
    """Return a hash for each place of a batch, of everything that a sample is."""
    rows = []
    for place in range(len(batch.clips)):
        digest = hashlib.sha256(f"{batch.epoch} {batch.repeat}".encode())
        for tensor in (batch.clips, batch.labels, batch.indices, batch.readable, batch.visible, batch.decoded):
            if tensor is not None:
                digest.update(tensor[place].numpy().tobytes())
        rows.append(digest.hexdigest())
    return rows


def stream_hash(stream: list[Batch]) -> str:
    assert len(stream) > 1
    return hashlib.sha256(repr([sample_hashes(batch) for batch in stream]).encode()).hexdigest()


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_stream_is_the_same_with_none_one_and_two_workers(dataset: Dataset, repeats: int) -> None:
    hashes = {stream_hash(batches(dataset, workers=workers, repeats=repeats)) for workers in (0, 1, 2)}
    assert len(hashes) == 1


@pytest.mark.slow
def test_the_stream_is_the_same_with_eight_workers(dataset: Dataset) -> None:
    assert stream_hash(batches(dataset, workers=8)) == stream_hash(batches(dataset))


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_run_that_stops_in_the_middle_of_an_epoch_or_of_a_group_goes_on_with_the_same_stream(
    dataset: Dataset, repeats: int
) -> None:
    whole = batches(dataset, repeats=repeats, total=9)
    for start in (1, 4, 5):  # an epoch has three steps, or six with repeats
        rest = batches(dataset, repeats=repeats, start=start, total=9, workers=start % 2)
        assert stream_hash(rest) == stream_hash(whole[start:])


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_share_the_stream_of_one_process(dataset: Dataset, ranks: int) -> None:
    alone = batches(dataset)
    shared = [batches(dataset, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step, batch in enumerate(alone):
        wanted = sample_hashes(batch)
        found: dict[int, str] = {}
        for rank in range(ranks):
            places = Shard(rank, ranks).places(GLOBAL_BATCH)
            assert len(shared[rank][step].clips) == GLOBAL_BATCH // ranks
            found.update(zip(places, sample_hashes(shared[rank][step]), strict=True))
        assert [found[place] for place in range(GLOBAL_BATCH)] == wanted
        told = [bad.path for rank in range(ranks) for bad in shared[rank][step].bad]
        assert told == [bad.path for bad in batch.bad]


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("repeats", [1, 2])
def test_what_is_drawn_on_the_device_is_the_same_for_any_number_of_workers_and_ranks_and_after_a_stop(
    dataset: Dataset, ranks: int, repeats: int
) -> None:
    config = AugmentConfig(rand_augment=True, color_jitter=0.4, erasing_prob=0.5)
    augment = DeviceAugment(config, seed=SEED, mean=torch.full((3,), 0.5), std=torch.full((3,), 0.25))

    def hashes(batch: Batch) -> list[str]:
        pixels = augment(batch.clips, batch.keys())
        return [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in pixels]

    alone = [hashes(batch) for batch in batches(dataset, total=5, repeats=repeats)]
    assert len({one for row in alone for one in row}) > 4 * GLOBAL_BATCH
    for rank in range(ranks):
        places = Shard(rank, ranks).places(GLOBAL_BATCH)
        found = batches(dataset, workers=1, start=2, total=5, repeats=repeats, rank=rank, ranks=ranks)
        assert [hashes(batch) for batch in found] == [[row[place] for place in places] for row in alone[2:]]


@pytest.mark.parametrize(("batch_size", "ranks"), [(8, 1), (8, 2), (8, 4), (24, 3), (12, 6)])
def test_the_mirrored_place_of_each_place_is_on_its_rank_and_mirrored_there(batch_size: int, ranks: int) -> None:
    seen = []
    for rank in range(ranks):
        places = Shard(rank, ranks).places(batch_size)
        assert [batch_size - 1 - place for place in places] == places[::-1]
        seen += places
    assert sorted(seen) == list(range(batch_size))


def test_an_odd_number_of_clips_on_each_rank_is_in_a_row() -> None:
    assert [Shard(rank, 2).places(6) for rank in range(2)] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (Shard(0, 3), "batch_size is 8, which 3 ranks cannot share equally: use a multiple of 3"),
        (Shard(4, 4), r"rank is 4 and world_size 4; a rank is in \[0, world_size\)"),
        (Shard(-1, 4), "rank is -1"),
    ],
)
def test_ranks_that_cannot_share_a_batch_are_refused(shard: Shard, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shard.places(8)


def test_repeats_decode_once_and_put_the_siblings_of_a_clip_into_steps_of_their_own(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(path: str, **options: Any) -> object:
        opened.append(str(path))
        return open_reader(path, **options)

    monkeypatch.setattr("videomae.data.datasets.open_reader", counted)
    stream = batches(dataset, repeats=3, total=9)
    assert len(opened) == len(set(opened)) == 24
    assert [(batch.epoch, batch.repeat) for batch in stream] == [(0, repeat) for _ in range(3) for repeat in range(3)]
    for first in range(0, 9, 3):
        one, two, three = stream[first : first + 3]
        assert torch.equal(one.indices, two.indices)
        assert len(set(one.indices.tolist())) == GLOBAL_BATCH
        for other in (two, three):
            assert torch.equal(one.readable, other.readable)
            assert other.bad == []
            differ = (one.clips != other.clips).flatten(1).any(dim=1)  # [B]; some draw the same crop
            assert differ.sum() > GLOBAL_BATCH // 2
            if one.visible is not None and other.visible is not None:
                assert (one.visible != other.visible).any(dim=1).sum() > GLOBAL_BATCH // 2
    assert sum(len(batch.bad) for batch in stream) == 1
    assert steps_per_epoch(24, batch_size=GLOBAL_BATCH, repeats=3) == 9


def test_the_first_of_several_repeats_is_the_sample_without_repeats(dataset: Dataset) -> None:
    alone = batches(dataset, total=3)
    repeated = batches(dataset, total=9, repeats=3)
    assert stream_hash(repeated[::3]) == stream_hash(alone)
    key = SampleKey(0, int(alone[0].indices[0]))
    samples = dataset.siblings(key, repeats=2)
    assert isinstance(samples, list)
    assert torch.equal(samples[0].clip, alone[0].clips[0])


def test_no_repeats_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment\.repeats is 0; it must be at least 1"):
        AugmentConfig(repeats=0)
