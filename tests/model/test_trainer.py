"""transformers' Trainer, with which most people fine-tune, takes our classifier as it takes its own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_models import make_model, random_video
from videomae.compat.trainer import configuration_saver
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


@pytest.mark.filterwarnings("ignore")  # the Trainer's own, about its future versions
@pytest.mark.parametrize("recompute", [False, True])
def test_the_trainer_trains_evaluates_and_saves_a_model_that_loads(tmp_path: Path, recompute: bool) -> None:
    model = make_model(VideoMAEForVideoClassification, num_labels=3)
    before = model.classifier.weight.detach().clone()
    clips = random_video(model.config, batch=6)
    data = [{"pixel_values": clip, "labels": torch.tensor(number % 3)} for number, clip in enumerate(clips)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "run"),
        per_device_train_batch_size=2,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        gradient_checkpointing=recompute,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    processor = VideoMAEImageProcessor(size=16, crop_size=16)
    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, eval_dataset=data, processing_class=processor
    )
    assert trainer.train().global_step == 6
    assert model.is_gradient_checkpointing == recompute
    assert not torch.equal(model.classifier.weight.detach(), before)
    measured = trainer.evaluate()
    trainer.save_model(str(tmp_path / "saved"))
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved")
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "saved").to_dict() == processor.to_dict()
    model.save_pretrained(tmp_path / "whole")
    whole = VideoMAEForVideoClassification.from_pretrained(tmp_path / "whole")
    labels = torch.tensor([int(one["labels"]) for one in data])
    for loaded in (again, whole):
        with torch.no_grad():
            assert float(loaded(clips, labels=labels).loss) == pytest.approx(measured["eval_loss"], rel=1e-4)


NAMES = {0: "sit", 1: "stand", 2: "fall"}


def trainer_of_named_classes(folder: Path, **sizes: int) -> Any:
    model = make_model(VideoMAEForVideoClassification, id2label=NAMES, **sizes)
    data = [{"pixel_values": clip, "labels": 1} for clip in random_video(model.config, batch=2)]
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=1, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    return transformers.Trainer(model, arguments, train_dataset=data)


def assert_kept(folder: Path, model: VideoMAEForVideoClassification) -> None:
    """Assert that a folder holds this model with its classes and sizes, and that loading it warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = VideoMAEForVideoClassification.from_pretrained(folder)
    assert again.config.id2label == NAMES
    assert again.config.image_size == 16
    clip = random_video(model.config)
    torch.testing.assert_close(again(clip).logits, model.eval()(clip).logits, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("width", [32, 384])  # the heads of the first are those of no published model
def test_what_the_trainer_saves_keeps_its_classes_and_sizes(tmp_path: Path, width: int) -> None:
    trainer = trainer_of_named_classes(
        tmp_path / "run", hidden_size=width, num_attention_heads=width // 8, num_hidden_layers=1
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    for folder in (tmp_path / "run" / "checkpoint-1", tmp_path / "saved"):
        assert_kept(folder, trainer.model)
    before = sorted(tmp_path.rglob("*"))
    trainer.model.state_dict()  # asked for by anybody else, it writes nothing
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("with_callback", [False, True])
def test_weights_gathered_from_several_processes_need_the_callback_and_are_warned_of_without(
    tmp_path: Path, with_callback: bool
) -> None:
    trainer = trainer_of_named_classes(tmp_path, hidden_size=384, num_attention_heads=6, num_hidden_layers=1)
    if with_callback:
        trainer.add_callback(configuration_saver())
    trainer.args.save_strategy = "no"
    trainer.train()
    # What the Trainer does after FSDP or DeepSpeed has gathered them.
    trainer._save(str(tmp_path), state_dict=trainer.model.state_dict())
    if with_callback:
        assert_kept(tmp_path, trainer.model)
    else:
        with pytest.warns(UserWarning, match="class names and sizes are guessed: give config=model.config here"):
            VideoMAEForVideoClassification.from_pretrained(tmp_path)
