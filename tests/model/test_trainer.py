"""transformers' Trainer, with which most people fine-tune, takes our classifier as it takes its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny_models import make_model, random_video
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
    trainer.save_model(str(tmp_path / "saved"))  # of models that are not transformers' own, the weights alone
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved", config=model.config)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "saved").to_dict() == processor.to_dict()
    model.save_pretrained(tmp_path / "whole")
    whole = VideoMAEForVideoClassification.from_pretrained(tmp_path / "whole")
    labels = torch.tensor([int(one["labels"]) for one in data])
    for loaded in (again, whole):
        with torch.no_grad():
            assert float(loaded(clips, labels=labels).loss) == pytest.approx(measured["eval_loss"], rel=1e-4)
