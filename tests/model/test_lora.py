"""LoRA of the `peft` package on these networks: it attaches, trains alone, and merges without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny_models import ALL_CLASSES, inputs_for, make_model, scalar
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining

peft = pytest.importorskip("peft", reason="peft is not installed: LoRA is not tested")
TARGETS = [["query", "value"], ["dense"], ["query", "value", "dense"]]


def with_lora(cls: type[Any], targets: list[str]) -> tuple[Any, Any]:
    """Return a random network, and the same wrapped by LoRA on `targets`."""
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, lora_dropout=0.0)
    return make_model(cls), peft.get_peft_model(make_model(cls), config)


def train(model: Any, *, steps: int = 12) -> list[float]:
    """Take steps of Adam on one batch; return the losses before each."""
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        loss = scalar(model(**inputs_for(model.base_model.model)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def answer(model: Any) -> torch.Tensor:
    """Return the network's main output for one batch."""
    with torch.no_grad():
        output = model(**inputs_for(getattr(getattr(model, "base_model", None), "model", model)))
    return output["logits"] if "logits" in output else output["last_hidden_state"]


@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_lora_attaches_to_every_layer_and_at_first_changes_nothing(cls: type[Any], targets: list[str]) -> None:
    plain, lora = with_lora(cls, targets)
    wanted = {name for name, _ in plain.named_modules() if name.rpartition(".")[2] in targets}
    attached = {name.removesuffix(".lora_A.default") for name, _ in lora.base_model.model.named_modules()} & wanted
    holders = {name for name, module in lora.base_model.model.named_modules() if hasattr(module, "lora_A")}
    assert holders == attached == wanted
    trainable = [name for name, parameter in lora.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * len(wanted)
    assert all("lora_" in name for name in trainable)
    torch.testing.assert_close(answer(lora), answer(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_lora_trains_alone_and_merges_to_the_same_outputs(cls: type[Any], targets: list[str]) -> None:
    plain, lora = with_lora(cls, targets)
    losses = train(lora)
    assert losses[-1] < losses[0] - 0.01
    for name, parameter in lora.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    trained = answer(lora)
    assert (trained - answer(plain)).abs().max() > 1e-2
    merged = lora.merge_and_unload()
    assert type(merged) is cls
    assert merged.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(answer(merged), trained, atol=1e-4, rtol=1e-4)
    untouched = [name for name in plain.state_dict() if name.rpartition(".")[0].rpartition(".")[2] not in targets]
    assert untouched
    for name in untouched:
        assert torch.equal(merged.state_dict()[name], plain.state_dict()[name]), name


def test_merged_networks_are_saved_and_loaded_like_any_other(tmp_path: Any) -> None:
    _, lora = with_lora(VideoMAEForVideoClassification, ["query", "value"])
    train(lora, steps=3)
    merged = lora.merge_and_unload()
    merged.save_pretrained(tmp_path)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert torch.equal(answer(again), answer(merged))


def test_adapters_are_saved_apart_and_loaded_onto_the_network_again(tmp_path: Any) -> None:
    plain, lora = with_lora(VideoMAEForPreTraining, ["query", "value"])
    train(lora, steps=3)
    lora.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    assert torch.equal(answer(again), answer(lora.eval()))
