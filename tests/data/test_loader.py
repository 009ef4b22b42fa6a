"""Claims about batches: the same whatever the workers and the start, complete, with bad videos named."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.data.augment import AugmentConfig
from videomae.data.datasets import BadVideo, ClipSample, FinetuningDataset, PretrainingDataset, SampleKey
from videomae.data.loader import Batch, epoch_order, in_steps, steps_per_epoch, train_loader
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.data.synthetic import write_motion_videos
from videomae.engine.copying import DeviceCopies
from videomae.engine.workers import running_workers
from videomae.errors import ConfigError
from videomae.masking import MaskConfig
from videomae.patches import TokenGrid
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import FOLDER, TABLE_SUFFIX, IndexStore
from videomae.video.sampling import ClipConfig

SIZE = 32
CLIP = ClipConfig(num_frames=4, stride=2)
Dataset = PretrainingDataset | FinetuningDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion")
    write_motion_videos(folder, videos_per_class=1, size=SIZE, num_frames=20)
    return folder


@pytest.fixture
def pretraining(folder: Path) -> PretrainingDataset:
    return PretrainingDataset(
        scan_unlabelled(folder),
        clip=CLIP,
        size=SIZE,
        augment=AugmentConfig(flip=True),
        mask=MaskConfig(),
        grid=TokenGrid(2, 4, 4),
        seed=0,
    )


@pytest.fixture
def finetuning(folder: Path) -> FinetuningDataset:
    return make_finetuning(folder)


def make_finetuning(folder: Path) -> FinetuningDataset:
    return FinetuningDataset(scan_labelled(folder), clip=CLIP, size=SIZE, augment=AugmentConfig("resized"), seed=0)


def loader(
    dataset: Dataset, *, num_workers: int = 0, seed: int = 0, start: int = 0, total: int = 5, size: int = 3
) -> Iterable[Batch]:
    groups = train_loader(
        dataset, batch_size=size, num_workers=num_workers, seed=seed, start_step=start, total_steps=total
    )
    return in_steps(groups, start_step=start, repeats=1)


def assert_equal(first: Batch, second: Batch) -> None:
    assert (first.epoch, first.bad) == (second.epoch, second.bad)
    for name in ("clips", "labels", "indices", "readable", "visible", "decoded"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None and other is None) or (one.dtype == other.dtype and torch.equal(one, other)), name


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_batches_are_equal_to_the_bit_with_none_one_and_two_workers(
    kind: str, request: pytest.FixtureRequest
) -> None:
    dataset = request.getfixturevalue(kind)
    alone = list(loader(dataset))
    assert len(alone) == 5
    for num_workers in (1, 2):
        for first, second in zip(alone, loader(dataset, num_workers=num_workers), strict=True):
            assert_equal(first, second)


def test_a_resumed_run_gets_the_tail_of_the_whole_run(pretraining: PretrainingDataset) -> None:
    whole = list(loader(pretraining, total=7))
    for start, num_workers in ((3, 0), (4, 2), (7, 0)):
        tail = list(loader(pretraining, start=start, total=7, num_workers=num_workers))
        assert len(tail) == 7 - start
        for first, second in zip(whole[start:], tail, strict=True):
            assert_equal(first, second)


def test_a_longer_run_begins_like_a_shorter_one(finetuning: FinetuningDataset) -> None:
    for first, second in zip(loader(finetuning, total=3), loader(finetuning, total=9), strict=False):
        assert_equal(first, second)


def test_a_batch_has_the_promised_shapes(pretraining: PretrainingDataset, finetuning: FinetuningDataset) -> None:
    batch = next(iter(loader(pretraining)))
    assert batch.clips.shape == (3, 4, 3, SIZE, SIZE)
    assert batch.clips.dtype == torch.uint8
    assert batch.labels.tolist() == [-1, -1, -1]
    assert batch.visible is not None
    assert batch.decoded is not None
    assert batch.visible.shape == (3, 4)
    assert batch.decoded.shape == (3, 28)
    assert batch.visible.dtype == batch.decoded.dtype == batch.labels.dtype == torch.int64
    labelled = next(iter(loader(finetuning)))
    assert labelled.visible is None
    assert labelled.decoded is None
    assert torch.equal(labelled.labels, labelled.indices)  # one video in each class


def test_no_video_comes_twice_in_an_epoch_and_the_rest_is_dropped(finetuning: FinetuningDataset) -> None:
    batches = list(loader(finetuning, total=6))
    assert steps_per_epoch(len(finetuning), batch_size=3) == 2
    assert [batch.epoch for batch in batches] == [0, 0, 1, 1, 2, 2]
    for epoch in range(3):
        seen = torch.cat([batch.indices for batch in batches if batch.epoch == epoch]).tolist()
        assert len(set(seen)) == len(seen) == 6
        assert seen == epoch_order(8, seed=0, epoch=epoch)[:6].tolist()


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    orders = [epoch_order(100, seed=seed, epoch=epoch) for seed in range(4) for epoch in range(4)]
    assert all(np.array_equal(np.sort(order), np.arange(100)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 16
    assert orders[0].dtype == np.int64


def test_the_order_is_the_same_in_every_version() -> None:
    assert epoch_order(10, seed=7, epoch=2).tolist() == [2, 1, 7, 8, 5, 4, 9, 3, 6, 0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_videos_are_listed_by_name_and_a_black_clip_keeps_their_place(tmp_path: Path, num_workers: int) -> None:
    write_motion_videos(tmp_path, videos_per_class=1, size=SIZE, num_frames=20)
    dataset = make_finetuning(tmp_path)
    whole = list(loader(dataset, size=4, total=4))
    truncated, text = (dataset.manifest.rows[i].path for i in (2, 5))
    truncated.write_bytes(truncated.read_bytes()[:600])
    text.write_text("a text that calls itself a video\n" * 50)
    batches = list(loader(dataset, size=4, total=4, num_workers=num_workers))
    for epoch in (0, 1):
        of_epoch = [batch for batch in batches if batch.epoch == epoch]
        assert sorted(bad.path for batch in of_epoch for bad in batch.bad) == [str(truncated), str(text)]
    for before, batch in zip(whole, batches, strict=True):
        assert torch.equal(batch.indices, before.indices)
        readable = torch.tensor([index not in (2, 5) for index in batch.indices.tolist()])
        assert torch.equal(batch.readable, readable)
        assert batch.num_readable == 4 - len(batch.bad)
        assert torch.equal(batch.clips[readable], before.clips[readable])  # the others do not move
        assert torch.equal(batch.labels[readable], before.labels[readable])
        assert batch.clips.shape == before.clips.shape
        assert not batch.clips[~readable].any()
        assert (batch.labels[~readable] == -1).all()
        assert all(Path(bad.path).name in bad.reason for bad in batch.bad)


def test_a_batch_of_bad_videos_alone_has_its_full_size(tmp_path: Path) -> None:
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no video")
    (batch,) = loader(make_finetuning(tmp_path), total=1)
    assert batch.clips.shape == (3, 4, 3, SIZE, SIZE)
    assert batch.clips.dtype == torch.uint8
    assert batch.num_readable == 0
    assert len(batch.bad) == 3
    assert len(batch.copied(DeviceCopies(torch.device("cpu"))).bad) == 3


def test_batches_move_to_a_device_whole(pretraining: PretrainingDataset) -> None:
    batch = next(iter(loader(pretraining)))
    moved = batch.copied(DeviceCopies(torch.device("meta")))
    tensors = (moved.clips, moved.labels, moved.indices, moved.readable, moved.visible, moved.decoded)
    assert [tensor.device.type for tensor in tensors if tensor is not None] == ["meta"] * 6
    assert (moved.epoch, moved.bad) == (batch.epoch, batch.bad)
    assert batch.clips.device.type == "cpu"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_reading_batches_leaves_the_global_random_state_alone(
    pretraining: PretrainingDataset, num_workers: int
) -> None:
    before = torch.get_rng_state()
    assert len(list(loader(pretraining, num_workers=num_workers, total=2))) == 2
    assert torch.equal(torch.get_rng_state(), before)


class ThreadCounts(FinetuningDataset):
    """Reports the number of threads that torch uses where samples are read, as the label."""

    def siblings(self, key: SampleKey, *, repeats: int) -> list[ClipSample] | BadVideo:
        samples = super().siblings(key, repeats=repeats)
        assert isinstance(samples, list)
        return [replace(sample, label=torch.get_num_threads()) for sample in samples]


def test_workers_use_one_thread_each(folder: Path) -> None:
    dataset = ThreadCounts(scan_labelled(folder), clip=CLIP, size=SIZE, augment=AugmentConfig(), seed=0)
    (batch,) = loader(dataset, num_workers=1, total=1)
    assert batch.labels.tolist() == [1, 1, 1]


def test_workers_outlive_ctrl_c_so_that_a_run_can_end_in_order(finetuning: FinetuningDataset) -> None:
    before = set(multiprocessing.active_children())
    groups = train_loader(finetuning, batch_size=3, num_workers=2, seed=0, start_step=0, total_steps=12)
    with running_workers(groups) as started:
        workers = set(multiprocessing.active_children()) - before
        assert len(workers) == 2
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGINT)
        found = list(in_steps(started, start_step=0, repeats=1))
    for one, other in zip(found, loader(finetuning, total=12), strict=True):
        assert_equal(one, other)


def test_more_workers_than_processors_are_warned_of_in_one_line_of_our_own(
    finetuning: FinetuningDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videomae.engine.workers.num_processors", lambda: 2)
    with pytest.warns(UserWarning, match="workers") as found:
        train_loader(finetuning, batch_size=3, num_workers=200, seed=0, start_step=0, total_steps=1)
    (said,) = (str(one.message) for one in found)
    assert said.startswith("loop.workers is 200, but this process may use 2 processors: use loop.workers 2, unless ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_loader(finetuning, batch_size=3, num_workers=2, seed=0, start_step=0, total_steps=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 9}, "batch_size is 9, but the data set has only 8 videos: use a batch_size of at most 8"),
        ({"size": 0}, "batch_size is 0; it must be at least 1"),
        ({"num_workers": -1}, "num_workers is -1; it must be at least 0"),
        ({"start": 6}, "start_step is 6; it must be between 0 and total_steps, 5"),
        ({"start": -1}, "start_step is -1; it must be between 0 and total_steps, 5"),
    ],
)
def test_numbers_out_of_range_are_refused(
    finetuning: FinetuningDataset, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loader(finetuning, **settings)


SPAWN = """
import sys
import torch
from pathlib import Path
from videomae.data.augment import AugmentConfig
from videomae.data.datasets import FinetuningDataset
from videomae.data.loader import train_loader
from videomae.data.scan import scan_labelled
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import FOLDER, TABLE_SUFFIX, IndexStore
from videomae.video.sampling import ClipConfig

if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    dataset = FinetuningDataset(
        scan_labelled(Path(sys.argv[1])),
        clip=ClipConfig(num_frames=4, stride=2),
        size=32,
        augment=AugmentConfig("resized"),
        seed=0,
    )
    loader = train_loader(dataset, batch_size=3, num_workers=2, seed=0, start_step=0, total_steps=5)
    torch.save([vars(batch) for (batch,) in loader], sys.argv[2])
"""


@pytest.mark.slow
def test_spawned_workers_as_on_macos_and_windows_give_the_same_batches(
    folder: Path, finetuning: FinetuningDataset, tmp_path: Path
) -> None:
    script, result = tmp_path / "spawn.py", tmp_path / "batches.pt"
    script.write_text(SPAWN)
    subprocess.run([sys.executable, str(script), str(folder), str(result)], check=True, timeout=300)
    spawned = [Batch(**values) for values in torch.load(result, weights_only=True)]
    for first, second in zip(loader(finetuning), spawned, strict=True):
        assert_equal(first, second)


def test_workers_keep_the_indices_of_a_collection_for_each_other(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    shutil.copytree(folder, root, ignore=shutil.ignore_patterns(".videomae"))
    manifest = scan_labelled(root)
    dataset = FinetuningDataset(manifest, clip=CLIP, size=SIZE, augment=AugmentConfig(crop="centre"), seed=0)
    batches = [
        list(train_loader(dataset, batch_size=4, num_workers=workers, seed=0, start_step=0, total_steps=6))
        for workers in (2, 0)
    ]
    for (one,), (other,) in zip(*batches, strict=True):
        assert torch.equal(one.clips, other.clips)
    tables = list((root / FOLDER).glob(f"*{TABLE_SUFFIX}"))
    assert 1 <= len(tables) <= 2  # one for each worker; this process had nothing to add
    store = IndexStore(root, (root / FOLDER,))
    assert all(store.get(EncodedFile(row.path)) is not None for row in manifest.rows)
