"""What Trainer, peft, accelerate, DataParallel and pickling do with transformers' models they do with these."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import peft
import pytest
import torch
import transformers
from accelerate.state import AcceleratorState
from accelerate.utils import convert_outputs_to_fp32
from torch.nn.parallel.scatter_gather import gather

from tiny_models import ALL_CLASSES, inputs_for, make_model, random_video
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import ACTIVATIONS
from videomae.model.outputs import ImageClassifierOutput


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_of_every_activation_is_copied_and_pickled_whole(
    tmp_path: Path, cls: type[VideoMAEPreTrainedModel], name: str
) -> None:
    model = make_model(cls, hidden_act=name).eval()
    inputs = inputs_for(model)
    torch.save(model, tmp_path / "model.pt")
    expected = model(**inputs).to_tuple()
    for one in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        torch.testing.assert_close(one(**inputs).to_tuple(), expected, atol=0, rtol=0)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_outputs_of_replicas_are_gathered_as_by_data_parallel(
    cls: type[VideoMAEPreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On one machine without GPUs: the gathering of tensors is replaced, the walk through the output is torch's.
    monkeypatch.setattr(
        "torch.nn.parallel.scatter_gather.Gather.apply",
        lambda _device, dim, *tensors: torch.cat([one.reshape(1) if one.dim() == 0 else one for one in tensors], dim),
    )
    model = make_model(cls).eval()
    outputs = [model(**inputs_for(model, seed=seed)) for seed in (0, 1)]
    gathered = gather(outputs, torch.device("cpu"))
    assert type(gathered) is type(outputs[0])
    assert list(gathered) == list(outputs[0])
    for name in gathered:
        assert gathered[name].shape[0] == 2 * (outputs[0][name].shape[0] if outputs[0][name].dim() else 1)
        assert torch.equal(gathered[name], getattr(gathered, name))


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_accelerate_gives_outputs_back_in_float32(cls: type[VideoMAEPreTrainedModel]) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # what a Trainer of another test has left
    model = make_model(cls).eval()
    prepared = accelerate.Accelerator(mixed_precision="bf16", cpu=True).prepare(model)
    output = prepared(**inputs_for(model))
    assert {tensor.dtype for tensor in output.values()} == {torch.float32}
    half = ImageClassifierOutput(logits=torch.ones(2, 3, dtype=torch.bfloat16))
    converted: Any = convert_outputs_to_fp32(lambda: half)()
    assert type(converted) is ImageClassifierOutput
    assert converted.logits.numpy().dtype == np.float32


@pytest.mark.parametrize("how", ["label smoothing", "compute_loss_func", "weights by get"])
def test_the_trainer_takes_losses_that_are_not_the_models_own(tmp_path: Path, how: str) -> None:
    model = make_model(VideoMAEForVideoClassification)
    data = [
        {"pixel_values": clip, "labels": number % 5}
        for number, clip in enumerate(random_video(model.config, batch=6))
    ]
    seen: list[tuple[int, ...]] = []

    def metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction.predictions.shape)
        return {"accuracy": 0.0}

    class Weighted(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(outputs.get("logits"), labels, torch.arange(1.0, 6.0))
            return (loss, outputs) if return_outputs else loss

    settings = {"label_smoothing_factor": 0.1} if how == "label smoothing" else {}
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    own = {}
    if how == "compute_loss_func":
        own["compute_loss_func"] = lambda outputs, labels, **_: torch.nn.functional.cross_entropy(
            outputs["logits"], labels
        )
    trainer_class = Weighted if how == "weights by get" else transformers.Trainer
    trainer = trainer_class(model, arguments, train_dataset=data, eval_dataset=data, compute_metrics=metrics, **own)
    before = model.classifier.weight.clone()
    trainer.train()
    assert not torch.equal(model.classifier.weight, before)
    result = trainer.evaluate()
    assert np.isfinite(result["eval_loss"])
    assert seen == [(6, 5)]


def test_adapters_trained_beside_transformers_work_here_and_the_reverse(tmp_path: Path) -> None:
    ours = make_model(VideoMAEForVideoClassification).eval()
    ours.save_pretrained(tmp_path / "model")
    inputs = inputs_for(ours)

    def fresh(package: Any) -> Any:
        return package.from_pretrained(tmp_path / "model").eval()

    classes = {"ours": VideoMAEForVideoClassification, "theirs": transformers.VideoMAEForVideoClassification}
    for trained, used in (("ours", "theirs"), ("theirs", "ours")):
        settings = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
        adapted = peft.get_peft_model(fresh(classes[trained]), settings).eval()
        adapted.save_pretrained(tmp_path / trained)
        other = peft.PeftModel.from_pretrained(fresh(classes[used]), tmp_path / trained).eval()
        expected = adapted(**inputs).logits
        torch.testing.assert_close(other(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(expected, ours(**inputs).logits, atol=1e-3)
