"""Checkpoints of sharded models: written while training goes on, whole or absent, read by any number of processes."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from processes import in_processes
from videomae.engine.checkpoint import CONTENTS, folder_state, latest_checkpoint
from videomae.engine.distributed import Ranks, joined
from videomae.engine.parallel import spread, whole
from videomae.engine.sharded_checkpoint import ShardedCheckpoints, load_sharded
from videomae.errors import CheckpointError

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


class Trained:
    """A sharded model and its optimizer."""

    def __init__(self, ranks: Ranks) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 3))
        self.model = spread(model, ranks, "fsdp", blocks=[model[0]], dtype=torch.float32).model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)

    def step(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model(torch.randn(8, 6, generator=generator)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def values(self) -> list[torch.Tensor]:
        parameters = list(self.model.parameters())
        moments = [self.optimizer.state[one]["exp_avg_sq"] for one in parameters if one in self.optimizer.state]
        return [whole(one.detach()).clone() for one in (*parameters, *moments)]


def save_while_training(folder: Path, steps: int, keep: int) -> None:
    """Save after every step, and keep what the state was then."""
    with joined(CPU, needs_group=True) as ranks:
        trained, checkpoints = Trained(ranks), ShardedCheckpoints(folder / "run", ranks, keep=keep)
        for step in range(1, steps + 1):
            trained.step()
            values = trained.values()
            if ranks.is_first:
                torch.save(values, folder / f"values-{step}.pt")
            checkpoints.save(trained.model, trained.optimizer, step=step, plain={"note": f"of step {step}"})
            trained.step()  # while it is being written
        checkpoints.finish()


def load_and_compare(folder: Path, step: int) -> None:
    with joined(CPU, needs_group=True) as ranks:
        trained = Trained(ranks)
        state = load_sharded(folder / "run" / f"checkpoint-{step:08d}", trained.model, trained.optimizer)
        assert state == {"note": f"of step {step}", "step": step}
        found, expected = trained.values(), torch.load(folder / f"values-{step}.pt")
        assert len(found) == len(expected) == 8
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of two processes, of which two are kept."""
    folder = tmp_path_factory.mktemp("sharded")
    in_processes(2, save_while_training, folder, 3, 2)
    return folder


def test_the_newest_are_kept_and_nothing_half_written_is_left(saved: Path) -> None:
    assert [one.name for one in sorted((saved / "run").iterdir())] == ["checkpoint-00000002", "checkpoint-00000003"]
    assert latest_checkpoint(saved / "run") == saved / "run" / "checkpoint-00000003"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_another_number_of_processes_reads_the_state_that_was_saved_and_not_what_training_made_of_it(
    saved: Path, processes: int
) -> None:
    in_processes(processes, load_and_compare, saved, 3)


@pytest.mark.parametrize("damage", ["a bit", "a missing part", "a torn part", "no contents"])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(saved: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(saved / "run", folder)
    part = folder / "checkpoint-00000003" / "__1_0.distcp"
    content = bytearray(part.read_bytes())
    match damage:
        case "a bit":
            content[len(content) // 2] ^= 1
            part.write_bytes(content)
        case "a missing part":
            part.unlink()
        case "a torn part":
            part.write_bytes(content[:-1])
        case _:
            (part.parent / CONTENTS).unlink()
    with pytest.warns(UserWarning, match=r"checkpoint-00000003 is damaged \(.*\) and skipped for the one before it"):
        assert latest_checkpoint(folder) == folder / "checkpoint-00000002"


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONTENTS).write_text(json.dumps({"videomae_checkpoint": 99, "state": {}}))
    with pytest.raises(CheckpointError, match="is not a training checkpoint of this version"):
        folder_state(tmp_path)


def fail_to_write(folder: Path) -> None:
    with joined(CPU, needs_group=True) as ranks:
        trained, checkpoints = Trained(ranks), ShardedCheckpoints(folder / "run", ranks, keep=1)
        trained.step()
        checkpoints.save(trained.model, trained.optimizer, step=1, plain={})
        checkpoints.finish()
        if not ranks.is_first:  # a disk that is full in one process alone
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
        trained.step()
        checkpoints.save(trained.model, trained.optimizer, step=2, plain={})
        with pytest.raises(CheckpointError, match=r"checkpoint-00000002 cannot be written .* earlier checkpoints in"):
            checkpoints.finish()


def test_a_process_that_cannot_write_stops_all_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    in_processes(2, fail_to_write, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint-00000001"
