import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

from tiny_models import make_model, random_mask, random_video
from videomae.engine import compiled as compilation
from videomae.engine.runlog import MetricsLog
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.train.compiled import compile_parts
from videomae.train.finetune import finetune
from videomae.train.pretrain import pretrain


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every traced program, and run it without turning it into C++, which would take a minute."""
    traced: list[str] = []

    def backend(program: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        traced.append(str(program.graph))
        return aot_eager(program, inputs)

    torch._dynamo.reset()
    compilation.compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return traced


def test_compiled_parts_give_the_loss_and_the_gradients_of_the_model_as_written() -> None:
    plain = make_model(VideoMAEForPreTraining)
    parts = copy.deepcopy(plain)
    # Encoder, decoder and the embedding.
    blocks = len(parts.videomae.encoder.layer) + len(parts.decoder.decoder_layers)
    assert compile_parts(parts) == blocks + 1
    video, hidden = random_video(plain.config), random_mask()
    losses = [one(video, hidden).loss for one in (plain, parts)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for (name, one), other in zip(plain.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    assert list(plain.state_dict()) == list(parts.state_dict())


def test_a_compiled_model_can_be_copied_and_the_copy_has_its_own_weights() -> None:
    model = make_model(VideoMAEForPreTraining)
    compile_parts(model)
    video, hidden = random_video(model.config), random_mask()
    before = model(video, hidden).loss
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(model(video, hidden).loss, before)
    assert not torch.equal(other(video, hidden).loss, before)


def test_a_classifier_has_its_blocks_and_its_embedding_compiled() -> None:
    model = make_model(VideoMAEForVideoClassification).eval()
    video = random_video(model.config)
    expected = model(video).logits
    assert compile_parts(model) == len(model.videomae.encoder.layer) + 1
    torch.testing.assert_close(model(video).logits, expected)


def losses_of(run: Path) -> list[float]:
    """Return the loss of every step of a run."""
    return [record["loss"] for record in MetricsLog.read(run / "metrics.jsonl") if "loss" in record]


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", ["null", "1"])
def test_a_compiled_pre_training_run_has_the_losses_of_one_that_is_not(
    micro_batch: str, pretrain_recipe: Callable[..., PretrainRecipe], tmp_path: Path, programs: list[str]
) -> None:
    words = ("--monitor.enabled", "true", "--monitor.held_out", "0.3", "--loop.micro_batch", micro_batch)
    for choice in ("false", "true"):
        assert programs == []
        pretrain(pretrain_recipe(*words, "--loop.compile", choice), out=tmp_path / choice)
    assert losses_of(tmp_path / "true") == pytest.approx(losses_of(tmp_path / "false"), rel=1e-3)
    assert (
        4 <= len(programs) <= 8
    )  # normalization, embedding, block, decoder's last block, loss: none for the monitor


@pytest.mark.slow
def test_a_compiled_fine_tuning_run_with_stochastic_depth_learns_and_is_evaluated(
    finetune_recipe: Callable[..., FinetuneRecipe], tmp_path: Path, programs: list[str]
) -> None:
    words = ("--loop.compile", "true", "--head.drop_path_rate", "0.2", "--loop.micro_batch", "2")
    result = finetune(finetune_recipe(*words, "--loop.batch_size", "4"), out=tmp_path / "run")
    assert len(losses_of(tmp_path / "run")) == 6
    assert 0.0 <= result.evaluation.metrics.top1 <= 1.0
    assert len(programs) >= 3
