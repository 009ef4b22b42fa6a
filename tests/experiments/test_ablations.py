"""The ablations of docs/small-data.md, on a few clips and for a moment each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments.ablations import downstream, table
from experiments.ablations.clips import HELD_OUT, labelled, pool_of, views
from experiments.ablations.run import claim, file_name, one_run
from experiments.ablations.training import new_model, pretrain, separable_table
from experiments.ablations.ways import BASE, NUM_FRAMES, POOL_SIZE, SIZE, WAYS
from experiments.learning.pretraining import rate

from videomae.data.procedural import ProceduralVideos
from videomae.patches import TokenGrid

MOMENT = 0.05  # seconds of processor time


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, bright and dark, and generated clips."""
    folder = tmp_path_factory.mktemp("data")
    videos = ProceduralVideos(0, num_frames=2 * NUM_FRAMES, size=POOL_SIZE)
    for name, first in (("procedural", 0), ("held_out", HELD_OUT)):
        np.save(folder / f"{name}.npy", videos.clips(torch.arange(first, first + 8))[:, ::2].numpy())
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    clips = rng.integers(0, 100, (24, 20, SIZE, SIZE, 3)) + 150 * labels[:, None, None, None, None]
    np.savez(folder / "motion.npz", clips=clips.astype(np.uint8), labels=labels, roles=np.repeat([0, 1, 2], 8))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["base", "the paper's", "pixels and normalized", "running cells decoded", "patch 16"]
)
def test_a_way_trains_and_is_measured(name: str, data: Path) -> None:
    model, row = one_run(WAYS[name], data, seed=0, seconds=MOMENT)
    assert row["steps"] >= 1
    assert row["views"] == row["steps"] * WAYS[name].batch_size
    assert 0 < row["fvu"]["model"] < 20  # hardly trained, so it may be far worse than the mean color
    assert len(row["linear"]["correct"]) == 8
    assert all(bool(one.isfinite().all()) for one in model.parameters())


def test_bright_and_dark_are_told_apart_by_a_probe_without_any_training(data: Path) -> None:
    _, row = one_run(WAYS["untrained"], data, seed=0, seconds=MOMENT)
    assert row["steps"] == 0
    assert row["linear"]["accuracy"] == 1.0


def test_a_model_depends_on_its_seed_and_the_budget_zero_leaves_it_as_it_was(data: Path) -> None:
    first, second = (new_model(BASE, seed=0).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    model, _ = pretrain(WAYS["untrained"], pool_of(BASE, data), seed=0, seconds=MOMENT)
    assert all(torch.equal(first[name], one) for name, one in model.state_dict().items())
    other = new_model(BASE, seed=1).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_views_repeat_each_clip_for_its_masks(data: Path) -> None:
    way = replace(BASE, batch_size=8, repeats=4)
    batch = views(pool_of(way, data), way, torch.Generator().manual_seed(0))
    assert batch.shape == (8, NUM_FRAMES, 3, SIZE, SIZE)
    assert torch.equal(batch[0], batch[3])
    assert not torch.equal(batch[0], batch[4])


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    assert [round(rate(spent, warmup=0.03, cooldown=0.3), 2) for spent in (0.015, 0.1, 0.7, 0.85, 1.0)] == [
        0.5,
        1,
        1,
        0.5,
        0,
    ]


def test_separable_positions_tell_all_tokens_apart() -> None:
    codes = separable_table(TokenGrid(4, 8, 8), 64)[0]
    assert codes.shape == (256, 64)
    assert torch.cdist(codes, codes).fill_diagonal_(9).min() > 0.1


def test_a_file_is_claimed_once(tmp_path: Path) -> None:
    assert claim(tmp_path / "a.json")
    assert not claim(tmp_path / "a.json")
    (tmp_path / "b.json").touch()
    assert not claim(tmp_path / "b.json")


@pytest.mark.slow
def test_arms_are_finetuned_and_tabled(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    out.mkdir()
    torch.save(new_model(BASE, seed=0).state_dict(), models / f"{file_name(downstream.LONG)}-0.pt")
    for arm in ("procedural", "untrained", "truncated normal", "scratch"):
        job = downstream.Job(arm, "motion", 0)
        row = downstream.run(job, data, models, out, seconds=MOMENT / 4, tuning=MOMENT)
        assert len(row["correct"]) == 8
        (out / f"{job.name}.json").write_text(json.dumps({**vars(job), **row}))
    table.downstream(out)
    told = capsys.readouterr().out
    assert told.count("| motion | 100% | mean |") == 4 + 3  # fine-tuned all four, probed all but the long one
    assert "| procedural | 1 |" in told


def test_a_fraction_of_the_labels_is_one_of_each_class_at_least(data: Path) -> None:
    motion = labelled(data, "motion")
    rows = downstream.fraction_of(motion, motion.splits[0].train, 0.1, seed=0)
    assert sorted(motion.labels[rows].tolist()) == [0, 1]
