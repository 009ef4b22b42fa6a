"""`procedural:` in the place of a folder: other clips in every epoch, the same wherever they are drawn."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.data.datasets import ClipSample, SampleKey
from videomae.data.loader import train_loader
from videomae.data.manifest import CLIPS_AN_EPOCH, procedural_seed
from videomae.data.procedural import ProceduralVideos
from videomae.data.procedural_source import ProceduralDataset
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.errors import ManifestError
from videomae.masking import MaskConfig
from videomae.patches import TokenGrid
from videomae.video.sampling import ClipConfig


def dataset(source: str = "procedural:3", **settings: Any) -> ProceduralDataset:
    return ProceduralDataset(
        scan_unlabelled(source),
        clip=ClipConfig(4, 1),
        size=32,
        mask=MaskConfig(ratio=0.75),
        grid=TokenGrid(2, 4, 4),
        seed=0,
        device=torch.device("cpu"),
        **settings,
    )


def sample(data: ProceduralDataset, epoch: int, index: int) -> ClipSample:
    found = data[SampleKey(epoch, index)]
    assert isinstance(found, ClipSample)
    return found


@pytest.mark.parametrize(
    ("source", "seed"), [("procedural:", 0), ("procedural:7", 7), ("videos", None), ("p:1", None)]
)
def test_a_source_is_procedural_by_its_name(source: str, seed: int | None) -> None:
    assert procedural_seed(source) == seed
    assert procedural_seed(Path(source)) == seed


def test_a_seed_that_is_none_is_refused() -> None:
    with pytest.raises(ManifestError, match="procedural:x names no seed: use procedural: or a whole number after it"):
        scan_unlabelled("procedural:x")


def test_procedural_clips_have_no_labels_to_fine_tune_on() -> None:
    with pytest.raises(
        ManifestError, match="procedural: has no labels: pre-train on it, or write labelled videos with"
    ):
        scan_labelled("procedural:")


def test_the_fingerprint_tells_seeds_apart_and_not_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = scan_unlabelled("procedural:1").fingerprint()
    monkeypatch.chdir(tmp_path)
    assert scan_unlabelled("procedural:1").fingerprint() == one
    assert scan_unlabelled("procedural:2").fingerprint() != one


def test_a_sample_is_a_clip_of_the_seed_and_every_epoch_has_others() -> None:
    data = dataset()
    (expected,) = ProceduralVideos(3, num_frames=4, size=32).clips(torch.tensor([5]))
    first, second = sample(data, 0, 5), sample(data, 1, 5)
    assert torch.equal(first.clip, expected)
    assert first.clip.shape == (4, 3, 32, 32)
    assert not torch.equal(second.clip, first.clip)
    assert torch.equal(second.clip, data.clips_of(torch.tensor([5]), epoch=1)[0])
    assert len(data) == CLIPS_AN_EPOCH


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_where_they_are_drawn(workers: int) -> None:
    data = dataset()
    loader = train_loader(data, batch_size=3, num_workers=workers, seed=1, start_step=0, total_steps=2)
    on_device = dataset()
    on_device.drawn_here = False  # as on CUDA: workers hand over numbers and masks
    others = train_loader(on_device, batch_size=3, num_workers=0, seed=1, start_step=0, total_steps=2)
    for (batch,), (other,) in zip(loader, others, strict=True):
        assert other.clips.shape == (3, 0)
        assert torch.equal(on_device.clips_of(other.indices, epoch=other.epoch), batch.clips)
        assert torch.equal(batch.visible, other.visible)


def test_what_is_on_the_device_is_not_copied_into_workers() -> None:
    data = dataset()
    data.drawn_here = False
    assert pickle.loads(pickle.dumps(data)).videos is None
    assert pickle.loads(pickle.dumps(dataset())).videos is not None
