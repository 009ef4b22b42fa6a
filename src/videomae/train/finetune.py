"""Supervised fine-tuning of a pre-trained encoder, or training from random weights, on labelled videos.

Run as `videomae finetune`. The classifier uses mean pooling whatever the pre-training configuration says, because a
pre-trained encoder has no class token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from videomae.data.augment import directed_classes
from videomae.data.datasets import FinetuningDataset, SampleKey
from videomae.data.device_augment import DeviceAugment
from videomae.data.loader import Batch, Shard, train_loader
from videomae.data.manifest import Manifest
from videomae.data.mix import Mixing
from videomae.data.scan import scan_labelled
from videomae.data.skip_list import without_skipped
from videomae.data.splits import check_apart, measured_rows, not_used_lines, train_and_val, training_rows
from videomae.engine.average import WeightAverage
from videomae.engine.compiled import is_worth_compiling, uncompiled
from videomae.engine.distributed import Ranks, joined
from videomae.engine.interrupt import graceful_interrupt
from videomae.engine.precision import autocast, compute_dtype, pick_device
from videomae.engine.progress import TrainingProgress
from videomae.engine.runlog import owned_run
from videomae.engine.seeding import derive_seed
from videomae.errors import ConfigError
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.results import EVALUATION_FILE, EvaluationResult, load_evaluation
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD
from videomae.recipes.schema import FinetuneRecipe
from videomae.sharing.record import EvaluationSummary, ModelRecord, TrainingRecord, save_record
from videomae.train.cost import classification_clip_cost, run_cost
from videomae.train.gradients import Gradients
from videomae.train.initial import as_built, initialize_narrow, load_initial, origin_lines
from videomae.train.loop import train_steps
from videomae.train.pretrain import training_processor
from videomae.train.resume import resolve, saved_recipe
from videomae.train.session import Session
from videomae.train.spreading import spread_lines, spread_model, whole_model
from videomae.train.step import model_optimizer, plan_steps
from videomae.weights.report import LoadReport

MAX_CLASSES = 8  # named in a line


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run gives."""

    model_folder: Path
    """Where the classifier is."""
    evaluation: EvaluationResult
    """Multi-view evaluation of the final weights on the validation videos."""


def finetune(
    recipe: FinetuneRecipe,
    *,
    out: Path,
    overwrite: bool = False,
    resume: bool = False,
    model_class: type[VideoMAEForVideoClassification] = VideoMAEForVideoClassification,
) -> FinetuneResult:
    """Fine-tune a classifier.

    Args:
        recipe: Everything that the result depends on.
        out: Run folder: recipe, metrics, checkpoints and, at the end, the evaluation and the model folder.
        overwrite: Replace a run that is there.
        resume: Go on from the last checkpoint; every later loss equals the uninterrupted run's.
        model_class: What is trained, such as a subclass with another encoder.

    Returns:
        The model folder `out/model` and the evaluation on the validation videos.

    Raises:
        VideoMAEError: If the data, the recipe or the folder cannot be used, too many videos are bad, or training
            diverges. The last finished step is saved first.
        StopRequested: A KeyboardInterrupt, after SIGINT or SIGTERM. The last finished step is saved first.
    """
    recipe = resolve(recipe, out, resume=resume)
    device = pick_device(recipe.loop.device)
    with joined(device, needs_group=recipe.parallel.kind == "fsdp") as ranks, owned_run(out, ranks):
        return _finetune(recipe, out, overwrite, resume, model_class, ranks)


def _finetune(
    recipe: FinetuneRecipe,
    out: Path,
    overwrite: bool,
    resume: bool,
    model_class: type[VideoMAEForVideoClassification],
    ranks: Ranks,
) -> FinetuneResult:
    # ---- data and model: all that can be wrong is found before the run folder is touched --------------------
    loop = recipe.loop
    device = pick_device(loop.device)
    dtype = compute_dtype(loop.precision, device)
    train, val = training_and_validation(recipe)
    recipe = settle_flip(recipe, train.classes, out=out, resume=resume)
    model, report = build_classifier(recipe, train.classes, model_class)
    built = as_built(recipe.model, model.config, init=recipe.init, has_decoder=False)
    recipe = replace(recipe, model=built)
    model = model.to(device).train()
    size = recipe.model.image_size
    dataset = FinetuningDataset(train, clip=recipe.clip, size=size, augment=recipe.augment, seed=loop.seed)
    mean, std = (torch.tensor(one, device=device) for one in (IMAGENET_MEAN, IMAGENET_STD))
    compiles = is_worth_compiling(loop.compile, device)
    augment = DeviceAugment(recipe.augment, seed=loop.seed, mean=mean, std=std, compiles=compiles)
    smoothing = recipe.head.label_smoothing
    mixing = Mixing(recipe.mix, seed=loop.seed, num_classes=len(train.classes), label_smoothing=smoothing)
    plan = plan_steps(recipe, num_videos=len(train.rows))
    cost_of_clip = classification_clip_cost(model.config)
    spread = spread_model(model, recipe, ranks, dtype=dtype)

    def forward(clips: Batch, keys: Sequence[SampleKey], step: int) -> tuple[Tensor, Tensor]:
        pixels = augment(clips.clips, keys)  # [B, T, C, H, W]
        pixels, targets = mixing.apply(pixels, clips.labels, clips.readable, step=step)
        with autocast(device, dtype):
            logits = spread.module(pixels).logits  # [B, K]
        return mixing.loss(logits, targets, clips.readable), logits

    gradients = Gradients(
        spread,
        ranks,
        batch_size=plan.batch_size,
        micro_batch=loop.micro_batch,
        seed=loop.seed,
        device=device,
        forward=forward,
        count=lambda batch: batch.num_readable,
        in_pairs=recipe.mix.enabled,
    )
    optimizer = model_optimizer(
        model, recipe.optim, dtype=dtype, layer_id=model.layer_id, num_layer_ids=model.num_layer_ids
    )

    # ---- run folder ------------------------------------------------------------------------------------------
    session = Session(recipe, out, manifest=train, overwrite=overwrite, resume=resume, ranks=ranks)
    folder, evaluation_file = session.model_folder, session.folder.path / EVALUATION_FILE
    if session.is_finished(plan.total) and ranks.first(evaluation_file.is_file):
        print(f"the run in {out} is finished: it has done its {plan.total} steps and its evaluation")
        return FinetuneResult(folder, load_evaluation(evaluation_file))
    for line in origin_lines(report):
        print(line)
    decay = recipe.optim.ema_decay
    average = None if decay is None else WeightAverage(model, decay)
    start = session.restore(spread, optimizer, average)
    cost = run_cost(cost_of_clip, model, plan, loop, num_videos=len(train.rows), start_step=start)
    for line in (*cost.lines(), *spread_lines(ranks, recipe)):
        print(line)
    loader = train_loader(
        dataset,
        batch_size=plan.batch_size,
        num_workers=loop.workers,
        seed=loop.seed,
        start_step=start,
        total_steps=plan.total,
        repeats=recipe.augment.repeats,
        shard=Shard(ranks.rank, ranks.world_size),
    )
    with graceful_interrupt(agreed=ranks.world_size > 1) as interrupt:
        train_steps(
            "fine-tuning",
            recipe,
            plan,
            spread=spread,
            optimizer=optimizer,
            gradients=gradients,
            loader=loader,
            session=session,
            cost=cost,
            interrupt=interrupt,
            average=average,
        )

        # ---- the result --------------------------------------------------------------------------------------
        for line in session.summary():
            print(line)
        trained = whole_model(spread, model_class, ranks)
        processor = training_processor(size)

        def evaluated() -> EvaluationResult:
            with (
                interrupt.discardable(),
                uncompiled(),
                TrainingProgress("evaluating", total_steps=len(val.rows)) as progress,
            ):
                return evaluate(
                    trained,
                    val,
                    processor=processor,
                    clip=recipe.clip,
                    config=recipe.evaluation,
                    on_progress=lambda done, _: progress.update(done, num_clips=1),
                )

        def write() -> None:
            result.save(evaluation_file)
            session.append({"step": plan.total, "evaluation": result.metrics_dict()})
            trained.save_pretrained(folder)
            processor.save_pretrained(folder)
            training = TrainingRecord.from_dict(session.record(stage="fine-tuning", steps=plan.total))
            summary = EvaluationSummary.from_dict(result.metrics_dict())
            save_record(folder, ModelRecord(sampling=recipe.clip, training=training, evaluation=summary))

        with session.save_on_stop(), interrupt.alone():
            result = ranks.first(evaluated)
        ranks.first(write)
    return FinetuneResult(folder, result)


def training_and_validation(recipe: FinetuneRecipe) -> tuple[Manifest, Manifest]:
    """Return the two sets of videos.

    Raises:
        ManifestError: If a folder cannot be used.
        ConfigError: If the validation folder has videos of a class that the training folder lacks.
    """
    data = recipe.data
    scanned = [scan_labelled(data.train), *([] if data.val is None else [scan_labelled(data.val, subset=True)])]
    whole, *other = without_skipped(scanned, data.skip)
    if not other:
        train, val = train_and_val(whole, val_fraction=data.val_fraction)
        for line in not_used_lines(whole, train, val):
            print(line)
        return train, val
    train = training_rows(whole)
    val = measured_rows(other[0], first="val")
    check_apart(train, val)
    if not {val.classes[row.label] for row in val.rows if row.label is not None}.issubset(train.classes):
        raise ConfigError(
            f"data.val has the classes {', '.join(val.classes)} and data.train {', '.join(train.classes)}: "
            "name the folders alike; data.val may lack some, and have no other"
        )
    return train, val


def settle_flip(recipe: FinetuneRecipe, classes: Sequence[str], *, out: Path, resume: bool) -> FinetuneRecipe:
    """Switch the flip off, and say so, where a mirrored clip would be of another class.

    A resumed run keeps what it has done, also where a version without this rule has started it.
    """
    directed = directed_classes(classes)
    if not (recipe.augment.flip and directed) or (resume and saved_recipe(FinetuneRecipe, out).augment.flip):
        return recipe
    if not resume:
        others = f" and {len(directed) - MAX_CLASSES} others" if len(directed) > MAX_CLASSES else ""
        print(
            f"augment.flip is switched off: a mirrored clip of {', '.join(directed[:MAX_CLASSES])}{others} would be "
            "of another class; rename the classes to flip all the same"
        )
    return replace(recipe, augment=replace(recipe.augment, flip=False))


def build_classifier(
    recipe: FinetuneRecipe,
    classes: tuple[str, ...],
    model_class: type[VideoMAEForVideoClassification] = VideoMAEForVideoClassification,
) -> tuple[VideoMAEForVideoClassification, LoadReport | None]:
    """Return the model to train, and where its tensors came from (None: all are randomly initialized).

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
        model = model_class(recipe.model.build(recipe.clip, **settings))
        initialize_narrow(model.videomae)
        report = None
    else:
        shape = {"image_size": recipe.model.image_size, "num_frames": recipe.clip.num_frames}
        model, report = load_initial(
            model_class, recipe.init, recipe.model, has_decoder=False, fresh_head=True, **shape, **settings
        )
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(recipe.head.init_scale)
    return model, report
