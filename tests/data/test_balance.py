"""Balanced orders and weights: what they promise, counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from videomae.data.balance import balanced_order, loss_weights, occurrences
from videomae.data.configs import AugmentConfig
from videomae.data.datasets import FinetuningDataset
from videomae.data.loader import train_loader
from videomae.data.manifest import Manifest, VideoRow
from videomae.data.targets import Targets
from videomae.errors import ConfigError
from videomae.video.sampling import ClipConfig

LABELS = np.repeat([0, 1, 2], [50, 9, 2])


def test_every_class_comes_equally_often_in_every_pass() -> None:
    totals = np.zeros(3)
    for epoch in range(30):
        order = balanced_order(LABELS, seed=1, epoch=epoch)
        counts = np.bincount(LABELS[order], minlength=3)
        assert counts.sum() == 61
        assert counts.max() - counts.min() <= 1
        totals += counts
    assert totals.max() / totals.min() < 1.05, "what is left over goes to other classes in each pass"


def test_videos_of_a_class_are_seen_equally_often_and_all_of_them() -> None:
    seen = np.concatenate([balanced_order(LABELS, seed=1, epoch=epoch) for epoch in range(100)])
    counts = np.bincount(seen, minlength=61)
    for label in range(3):
        own = counts[label == LABELS]
        assert own.min() > 0.8 * own.mean()
        assert own.max() < 1.2 * own.mean()


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    one, again, other, later = (
        balanced_order(LABELS, seed=seed, epoch=epoch).tolist() for seed, epoch in ((0, 3), (0, 3), (1, 3), (0, 4))
    )
    assert one == again
    assert one != other
    assert one != later


def test_occurrences_count_what_has_come_before() -> None:
    assert occurrences(np.array([4, 1, 4, 4, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


def test_a_video_that_comes_again_in_a_pass_is_another_clip(labelled_folder: Path) -> None:
    paths = sorted(labelled_folder.rglob("*.mp4"))
    rows = tuple(VideoRow(path, int(number == 5)) for number, path in enumerate(paths))
    manifest = Manifest(labelled_folder, rows, ("a", "b"))
    dataset = FinetuningDataset(
        manifest, clip=ClipConfig(4, 1), size=16, augment=AugmentConfig(crop="resized"), seed=0
    )
    loader = train_loader(dataset, batch_size=6, num_workers=0, seed=0, start_step=0, total_steps=1, balanced=True)
    ((batch,),) = loader
    same = [place for place, index in enumerate(batch.indices.tolist()) if index == 5]
    assert len(same) == 3
    assert sorted(batch.keys()[place].occurrence for place in same) == [0, 1, 2]
    clips = [batch.clips[place] for place in same]
    assert not any((one == other).all() for number, one in enumerate(clips) for other in clips[:number])


def test_weights_of_classes_are_one_in_the_mean_over_videos_and_of_labels_make_both_sides_equal() -> None:
    choice = loss_weights(Targets("single_label_classification", ("a", "b", "c", "d"), LABELS))
    assert choice[LABELS].mean() == pytest.approx(1.0)
    assert (choice[:3] * [50, 9, 2]).tolist() == pytest.approx([61 / 3] * 3, rel=1e-5)
    assert choice[3] == 1.0
    several = np.zeros((10, 3))
    several[:2, 0] = several[:, 1] = 1
    assert loss_weights(Targets("multi_label_classification", ("a", "b", "c"), several)).tolist() == [4.0, 1.0, 1.0]
    with pytest.raises(ConfigError, match="values have no classes: use none"):
        loss_weights(Targets("regression", ("speed",), several[:, :1]))
