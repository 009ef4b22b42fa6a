"""Supervised fine-tuning of a pre-trained encoder, or training from random weights, on labelled videos.

Run as `videomae finetune`. The classifier pools by mean whatever the pre-training configuration says, because a
pre-trained network has no token that stands for the whole clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from videomae.data.augment import normalize
from videomae.data.datasets import FinetuningDataset
from videomae.data.loader import train_loader
from videomae.data.manifest import Manifest, scan_labelled, split_manifest
from videomae.engine.interrupt import graceful_interrupt
from videomae.engine.optim import build_optimizer, clip_and_norm, param_groups, scaled_lr
from videomae.engine.precision import autocast, compute_dtype, pick_device
from videomae.engine.progress import TrainingProgress
from videomae.engine.schedule import learning_rates, set_learning_rate, step_counts
from videomae.engine.seeding import derive_seed
from videomae.errors import ConfigError
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.results import EVALUATION_FILE, EvaluationResult
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD
from videomae.recipes.schema import FinetuneRecipe
from videomae.sharing.record import EvaluationSummary, ModelRecord, TrainingRecord, save_record
from videomae.train.initial import load_initial, origin_lines
from videomae.train.pretrain import training_processor
from videomae.train.session import Session
from videomae.weights.report import LoadReport
from videomae.weights.sources import RUN_FOLDER


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run gives."""

    model_folder: Path
    """Where the classifier is."""
    evaluation: EvaluationResult
    """Multi-view evaluation of the final weights on the validation videos."""


def finetune(recipe: FinetuneRecipe, *, out: Path, overwrite: bool = False, resume: bool = False) -> FinetuneResult:
    """Fine-tune a classifier.

    Args:
        recipe: Everything that the result depends on.
        out: Run folder: recipe, metrics, checkpoints and, at the end, the model folder.
        overwrite: Replace a run that is there.
        resume: Go on from the last checkpoint; every later loss equals the uninterrupted run's.

    Returns:
        The model folder `out/model` and the evaluation on the validation videos.

    Raises:
        VideoMAEError: If the data, the recipe or the folder cannot be used, or too many videos are bad.
        KeyboardInterrupt: After Ctrl-C; the run is saved first.
    """
    # ---- data and model: all that can be wrong is found before the run folder is touched --------------------
    loop = recipe.loop
    device = pick_device(loop.device)
    dtype = compute_dtype(loop.precision, device)
    train, val = training_and_validation(recipe)
    model, report = build_classifier(recipe, train.classes)
    model = model.to(device).train()
    size = recipe.model.image_size
    dataset = FinetuningDataset(train, clip=recipe.clip, size=size, augment=recipe.augment, seed=loop.seed)

    # ---- optimiser and schedule ------------------------------------------------------------------------------
    batch_size = min(loop.batch_size, len(train.rows))
    steps_per_epoch = len(train.rows) // batch_size
    total, warmup = step_counts(recipe.schedule, steps_per_epoch=steps_per_epoch)
    peak, final = scaled_lr(recipe.optim.base_lr, batch_size), scaled_lr(recipe.optim.min_lr, batch_size)
    rates = learning_rates(total, warmup, peak=peak, final=final)
    parameters = list(model.parameters())
    optimizer = build_optimizer(
        param_groups(
            model.named_parameters(),
            weight_decay=recipe.optim.weight_decay,
            no_decay=model.no_weight_decay(),
            layer_decay=recipe.optim.layer_decay,
            layer_id=model.layer_id,
            num_layer_ids=model.num_layer_ids,
        ),
        recipe.optim,
    )

    # ---- run folder ------------------------------------------------------------------------------------------
    session = Session(recipe, out, overwrite=overwrite, resume=resume, data_fingerprint=train.fingerprint())
    for line in origin_lines(report):
        print(line)
    start = session.restore(model, optimizer)
    loader = train_loader(
        dataset,
        batch_size=batch_size,
        num_workers=loop.workers,
        seed=loop.seed,
        start_step=start,
        total_steps=total,
    )
    mean = torch.tensor(IMAGENET_MEAN, device=device)
    std = torch.tensor(IMAGENET_STD, device=device)

    # ---- the loop --------------------------------------------------------------------------------------------
    with (
        graceful_interrupt() as interrupt,
        TrainingProgress("fine-tuning", total_steps=total, start_step=start) as progress,
    ):
        for step, batch in enumerate(loader, start=start + 1):
            session.bad.add(batch_size, {one.path: one.reason for one in batch.bad})
            loss = norm = torch.zeros((), device=device)
            lr = float(rates[step - 1])
            if len(batch.clips):
                batch = batch.to(device, non_blocking=True)
                torch.manual_seed(derive_seed(loop.seed, "step", step))  # drop path and dropout: the step's alone
                set_learning_rate(optimizer, lr)
                clips = normalize(batch.clips, mean, std)  # [B, T, C, H, W]
                with autocast(device, dtype):
                    logits = model(clips).logits  # [B, K]
                loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=recipe.head.label_smoothing)
                loss.backward()
                norm = clip_and_norm(parameters, recipe.optim.clip_grad)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            read = session.log_step(
                step, epoch=step / steps_per_epoch, lr=lr, clips=len(batch.clips), loss=loss, grad_norm=norm
            )
            progress.update(step, num_clips=len(batch.clips), loss=read, learning_rate=lr)
            if step % loop.checkpoint_steps == 0 or step == total or interrupt.requested:
                session.save(step, model, optimizer)
            if interrupt.requested and step < total:
                progress.say(f"saved at step {step}; go on with: videomae finetune --resume --out {out}")
                raise KeyboardInterrupt

    # ---- the result ------------------------------------------------------------------------------------------
    for line in session.bad.summary():
        print(line)
    processor = training_processor(size)
    with TrainingProgress("evaluating", total_steps=len(val.rows)) as progress:
        result = evaluate(
            model,
            val,
            processor=processor,
            clip=recipe.clip,
            config=recipe.evaluation,
            on_progress=lambda done, _: progress.update(done, num_clips=1),
        )
    result.save(session.folder.path / EVALUATION_FILE)
    session.metrics.append({"step": total, "evaluation": result.metrics_dict()})
    folder = session.folder.path / RUN_FOLDER
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    training = TrainingRecord.from_dict(session.record(stage="fine-tuning", steps=total))
    summary = EvaluationSummary.from_dict(result.metrics_dict())
    save_record(folder, ModelRecord(sampling=recipe.clip, training=training, evaluation=summary))
    return FinetuneResult(folder, result)


def training_and_validation(recipe: FinetuneRecipe) -> tuple[Manifest, Manifest]:
    """Return the two sets of videos.

    Raises:
        ManifestError: If a folder cannot be used.
        ConfigError: If the two folders name different classes.
    """
    data = recipe.data
    train = scan_labelled(data.train)
    if data.val is None:
        return split_manifest(train, val_fraction=data.val_fraction)
    val = scan_labelled(data.val)
    if val.classes != train.classes:
        raise ConfigError(
            f"data.val has the classes {', '.join(val.classes)} and data.train {', '.join(train.classes)}: "
            "name the folders alike"
        )
    return train, val


def build_classifier(
    recipe: FinetuneRecipe, classes: tuple[str, ...]
) -> tuple[VideoMAEForVideoClassification, LoadReport | None]:
    """Return the network to train, and where its tensors came from (None: all are fresh).

    Raises:
        WeightsError: If `recipe.init` cannot be loaded or is of another architecture.
    """
    settings = {
        "use_mean_pooling": True,
        "drop_path_rate": recipe.head.drop_path_rate,
        "classifier_dropout": recipe.head.dropout,
        "id2label": dict(enumerate(classes)),
    }
    torch.manual_seed(derive_seed(recipe.loop.seed, "weights"))
    if recipe.init is None:
        model = VideoMAEForVideoClassification(recipe.model.build(recipe.clip, **settings))
        report = None
    else:
        shape = {"image_size": recipe.model.image_size, "num_frames": recipe.clip.num_frames}
        model, report = load_initial(
            VideoMAEForVideoClassification, recipe.init, fresh_head=True, **shape, **settings
        )
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(recipe.head.init_scale)
    return model, report
