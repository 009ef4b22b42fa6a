"""Any number of processes and micro-batches train as one process does: losses, counts and weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processes import in_processes
from videomae.data.batches import Shard
from videomae.data.loader import epoch_order
from videomae.data.scan import scan_unlabelled
from videomae.data.synthetic import write_motion_videos
from videomae.engine.environment import read_environments
from videomae.engine.interrupt import StopRequested
from videomae.engine.runlog import MetricsLog
from videomae.errors import ConfigError
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.train.finetune import finetune
from videomae.train.pretrain import pretrain

BATCH = 8
STEPS = 20
CLOSE = 2e-6  # of losses and gradient norms: sums of float32 in another order, which 20 updates carry on
Recipes = Callable[..., PretrainRecipe | FinetuneRecipe]
COMMON = ["--loop.batch_size", str(BATCH), "--loop.precision", "fp32", "--loop.max_bad_fraction", "0.3"]
COMMON += ["--schedule.steps", str(STEPS), "--loop.checkpoint_steps", "50", "--loop.log_steps", "10"]
PRETRAIN = [*COMMON, "--model.overrides.drop_path_rate", "0.2", "--mask.decoder_kind", "running_cell"]
FINETUNE = [*COMMON, "--head.dropout", "0.2", "--head.drop_path_rate", "0.2"]
FINETUNE += ["--schedule.steps", "12", "--optim.ema_decay", "0.9"]
FINETUNE += ["--mix.mixup_alpha", "0.8", "--mix.cutmix_alpha", "1.0", "--augment.erasing_prob", "0.5"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen videos; both that the second of four processes has in the first batch cannot be read."""
    folder = tmp_path_factory.mktemp("shared") / "videos"
    write_motion_videos(folder, videos_per_class=2, size=32, num_frames=12)
    rows = scan_unlabelled(folder).rows
    order = epoch_order(len(rows), seed=0, epoch=0)
    for place in Shard(1, 4).places(BATCH):
        Path(rows[order[place]].path).write_text("no video")
    return folder


def train(recipe: PretrainRecipe | FinetuneRecipe, out: Path) -> None:
    if isinstance(recipe, PretrainRecipe):
        pretrain(recipe, out=out)
    else:
        finetune(recipe, out=out)


def numbers(run: Path) -> dict[str, list[Any]]:
    records = [one for one in MetricsLog.read(run / "metrics.jsonl") if "loss" in one]
    return {name: [one[name] for one in records] for name in ("step", "loss", "grad_norm", "clips")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words", "others"),
    [
        (
            "pretrain",
            PRETRAIN,
            [(4, "ddp", None), (2, "fsdp", 2), (4, "fsdp", None), (1, "ddp", 2)],
        ),
        ("finetune", FINETUNE, [(2, "ddp", 2), (2, "fsdp", None)]),
    ],
)
def test_processes_and_micro_batches_give_the_losses_of_one_process_also_where_one_can_read_nothing(
    kind: str,
    words: list[str],
    others: list[tuple[int, str, int | None]],
    videos: Path,
    pretrain_recipe: Recipes,
    finetune_recipe: Recipes,
    tmp_path: Path,
) -> None:
    make = pretrain_recipe if kind == "pretrain" else finetune_recipe
    words = [*words, "--data.train", str(videos)]
    if kind == "finetune":
        words += ["--data.val", str(videos)]
    train(make(*words), tmp_path / "alone")
    alone = numbers(tmp_path / "alone")
    assert alone["step"] == list(range(1, (STEPS if kind == "pretrain" else 12) + 1))
    assert alone["clips"][0] == BATCH - 2
    assert max(alone["clips"]) == BATCH
    for processes, parallel, micro_batch in others:
        run = tmp_path / f"{processes}-{parallel}-{micro_batch}"
        recipe = make(*words, "--parallel.kind", parallel, "--loop.micro_batch", json.dumps(micro_batch))
        if processes == 1:
            train(recipe, run)
        else:
            in_processes(processes, train, recipe, run)
        shared = numbers(run)
        assert shared["step"] == alone["step"]
        assert shared["clips"] == alone["clips"]
        for name in ("loss", "grad_norm"):
            pairs = zip(alone[name], shared[name], strict=True)
            worst = max(abs(mine - theirs) / mine for mine, theirs in pairs)
            assert worst < CLOSE, (run.name, name, worst)
        if kind == "finetune":
            mine, theirs = (json.loads((one / "evaluation.json").read_text()) for one in (tmp_path / "alone", run))
            for one, other in zip(mine["videos"], theirs["videos"], strict=True):
                assert one["path"] == other["path"]
                assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)
        files = [sorted(one.name for one in (place / "model").iterdir()) for place in (tmp_path / "alone", run)]
        assert files[0] == files[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loop.micro_batch", "0"], r"loop\.micro_batch is 0; use 1 or more, or null"),
        (["--parallel.kind", "zero"], r"parallel\.kind"),
        (
            ["--loop.device", "cpu", "--loop.cuda_graph", "true"],
            r"loop\.cuda_graph is true, but the run computes on cpu, not on a CUDA device: use auto",
        ),
        (
            ["--loop.micro_batch", "1", "--model.overrides.hidden_dropout_prob", "0.1"],
            r"hidden_dropout_prob is 0\.1, which is drawn for all tokens of a batch together .* use 0",
        ),
        (
            ["--parallel.kind", "fsdp", "--optim.optimizer", "muon"],
            r"optim\.optimizer is 'muon' and parallel\.kind is 'fsdp': .* use parallel\.kind ddp, or adamw",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_before_the_run_folder_is_made(
    words: list[str], message: str, pretrain_recipe: Recipes, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(pretrain_recipe(*words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mixing_in_micro_batches_of_one_clip_is_refused(finetune_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mix pairs of clips, .* leaves a clip alone: use an even number of clips"):
        train(finetune_recipe("--mix.mixup_alpha", "0.8", "--loop.micro_batch", "1"), tmp_path / "run")


class Signalled(VideoMAEForPreTraining):
    """Sends a signal to the second process in its fourth step."""

    num_calls = 0

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        Signalled.num_calls += 1
        if Signalled.num_calls == 4 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().forward(*arguments, **settings)


def stop(recipe: PretrainRecipe, out: Path) -> None:
    with pytest.raises(StopRequested) as stopped:
        pretrain(recipe, out=out, model_class=Signalled)
    assert stopped.value.exit_status == 128 + signal.SIGUSR1


def go_on(recipe: PretrainRecipe, out: Path) -> None:
    pretrain(recipe, out=out, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "others"), [("ddp", 4), ("fsdp", 1)])
def test_a_signal_to_one_process_stops_all_after_the_same_step_and_any_number_of_processes_goes_on(
    kind: str, others: int, pretrain_recipe: Recipes, videos: Path, tmp_path: Path
) -> None:
    words = ["--data.train", str(videos), "--parallel.kind", kind, "--loop.precision", "fp32"]
    words += ["--loop.batch_size", "4", "--loop.max_bad_fraction", "0.3", "--loop.checkpoint_steps", "100"]
    words += ["--optim.ema_decay", "0.7", "--loop.activation_checkpointing", "true"]
    recipe = pretrain_recipe(*words)
    in_processes(2, train, recipe, tmp_path / "whole")
    in_processes(2, stop, recipe, tmp_path / "same")
    (checkpoint,) = (tmp_path / "same" / "checkpoints").iterdir()
    assert checkpoint.stem == "checkpoint-00000004"
    shutil.copytree(tmp_path / "same", tmp_path / "others")

    in_processes(2, go_on, recipe, tmp_path / "same")
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (tmp_path / "same" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    in_processes(others, go_on, recipe, tmp_path / "others")
    expected, found = numbers(tmp_path / "whole"), numbers(tmp_path / "others")
    assert found == {name: pytest.approx(values, rel=CLOSE) for name, values in expected.items()}
    started, stopped, resumed, finished = MetricsLog.read(tmp_path / "others" / "history.jsonl")
    assert (started["processes"], resumed["processes"], resumed["step"]) == (2, others, 4)
    assert (stopped["event"], finished["event"]) == ("stopped", "finished")
    starts = read_environments(tmp_path / "others")
    assert [one["processes"] for one in starts] == [2, others], "the first process alone keeps it"
