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

from videomae.data.configs import ProblemType
from videomae.data.datasets import FinetuningDataset, SampleKey
from videomae.data.device_augment import DeviceAugment
from videomae.data.loader import Batch, Shard, train_loader
from videomae.engine.average import WeightAverage
from videomae.engine.compiled import is_worth_compiling
from videomae.engine.distributed import Ranks, joined
from videomae.engine.interrupt import graceful_interrupt
from videomae.engine.precision import autocast, compute_dtype, pick_device
from videomae.engine.runlog import owned_run
from videomae.engine.seeding import derive_seed
from videomae.evaluation.results import EVALUATION_FILE, EvaluationResult, load_evaluation
from videomae.inference.clips import as_channels
from videomae.inference.loaded import check_clip
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD
from videomae.recipes.schema import RECIPE_FILE, FinetuneRecipe
from videomae.train.adapting import Units, choose_trained
from videomae.train.channels import with_channels
from videomae.train.cost import classification_clip_cost, run_cost
from videomae.train.folds import open_folds, pooled_evaluation
from videomae.train.gradients import Gradients
from videomae.train.initial import as_built, initialize_narrow, load_initial, origin_lines
from videomae.train.labelled import labelled_videos, mixing_of, problem_lines, settle_flip
from videomae.train.loop import train_steps
from videomae.train.measuring import Measuring, load_last_evaluation
from videomae.train.merging import merged_tokens, merging_lines, merging_module
from videomae.train.pretrain import training_processor
from videomae.train.resume import resolve
from videomae.train.session import Session
from videomae.train.spreading import spread_lines, spread_model, step_graph
from videomae.train.step import model_optimizer, plan_steps
from videomae.train.trained import trained_parts
from videomae.weights.report import LoadReport


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run gives."""

    model_folder: Path
    """Where the classifier is."""
    evaluation: EvaluationResult
    """Multi-view evaluation of that classifier on the test or the validation videos."""
    last: EvaluationResult | None = None
    """That of the last weights, in `model-last/`; None where they are the classifier's."""


def finetune(
    recipe: FinetuneRecipe,
    *,
    out: Path,
    overwrite: bool = False,
    resume: bool = False,
    model_class: type[VideoMAEForVideoClassification] = VideoMAEForVideoClassification,
    recipe_name: str | None = None,
) -> FinetuneResult:
    """Fine-tune a classifier.

    Args:
        recipe: Everything that the result depends on.
        out: Run folder: recipe, metrics, checkpoints and, at the end, the evaluation and the model folder. With
            `data.folds` it holds one run for each fold, and the evaluation of all.
        overwrite: Replace a run that is there.
        resume: Go on from the last checkpoint; every later loss equals the uninterrupted run's.
        model_class: What is trained, such as a subclass with another encoder.
        recipe_name: What the run's records call the recipe.

    Returns:
        The model folder `out/model` and its evaluation: the best weights where there is validation during training,
        else the last. With folds, the folder of the first, and the evaluation of each video by the model that was
        not trained on it.

    Raises:
        VideoMAEError: If the data, the recipe or the folder cannot be used, too many videos are bad, or training
            diverges. The last finished step is saved first.
        StopRequested: A KeyboardInterrupt, after SIGINT or SIGTERM. The last finished step is saved first.
    """
    if recipe.data.folds is not None and recipe.data.fold is None:
        return _finetune_folds(
            recipe, out=out, overwrite=overwrite, resume=resume, model_class=model_class, recipe_name=recipe_name
        )
    recipe = resolve(recipe, out, resume=resume)
    device = pick_device(recipe.loop.device)
    with joined(device, needs_group=recipe.parallel.kind == "fsdp") as ranks, owned_run(out, ranks):
        return _finetune(recipe, out, overwrite, resume, model_class, ranks, recipe_name)


def _finetune(
    recipe: FinetuneRecipe,
    out: Path,
    overwrite: bool,
    resume: bool,
    model_class: type[VideoMAEForVideoClassification],
    ranks: Ranks,
    recipe_name: str | None,
) -> FinetuneResult:
    # ---- data and model: all that can be wrong is found before the run folder is touched --------------------
    loop = recipe.loop
    device = pick_device(loop.device)
    dtype = compute_dtype(loop.precision, device)
    videos = labelled_videos(recipe)
    train, problem = videos.train, videos.problem
    recipe = settle_flip(recipe, videos.names, out=out, resume=resume)
    model, report = build_classifier(recipe, videos.names, model_class, problem=problem)
    built = as_built(recipe.model, model.config, init=recipe.init, has_decoder=False)
    recipe = replace(recipe, model=built)
    trained_lines = choose_trained(model, recipe)
    model = model.to(device).train()
    size = recipe.model.image_size
    dataset = FinetuningDataset(
        train,
        clip=recipe.clip,
        size=size,
        augment=recipe.augment,
        seed=loop.seed,
        decoder=recipe.data.decoder,
    )
    mean, std = (torch.tensor(one, device=device) for one in (IMAGENET_MEAN, IMAGENET_STD))
    compiles = is_worth_compiling(loop.compile, device)
    augment = DeviceAugment(recipe.augment, seed=loop.seed, mean=mean, std=std, compiles=compiles)
    mixing = mixing_of(recipe, videos.targets, device)
    units = Units(videos.targets)
    # What is right for each row, of several labels and values; class ids come with the clips.
    targets_of_rows = units.standardized(torch.from_numpy(videos.targets.values)).to(device)  # [n, K]
    plan = plan_steps(recipe, num_videos=len(train.rows))
    merged = merged_tokens(model, recipe)
    cost_of_clip = classification_clip_cost(model.config, trained_parts(model, merged=merged), merged=merged)
    spread = spread_model(model, recipe, ranks, dtype=dtype, called=merging_module(model, recipe))

    def inputs_of(clips: Batch, keys: Sequence[SampleKey], step: int) -> tuple[Tensor, ...]:
        pixels = as_channels(augment(clips.clips, keys), model.config.num_channels)  # [B, T, C, H, W]
        is_choice = problem == "single_label_classification"
        labels = clips.labels if is_choice else targets_of_rows[clips.indices]
        return *mixing.apply(pixels, labels, clips.readable, step=step), clips.readable

    def loss_of(pixels: Tensor, targets: Tensor, readable: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, dtype):
            logits = spread.module(pixels).logits  # [B, K]
        return mixing.loss(logits, targets, readable), logits

    gradients = Gradients(
        spread,
        ranks,
        batch_size=plan.batch_size,
        micro_batch=loop.micro_batch,
        seed=loop.seed,
        device=device,
        inputs_of=inputs_of,
        loss_of=loss_of,
        graph=step_graph(loss_of, spread, recipe, ranks),
        count=lambda batch: batch.num_readable,
        in_pairs=recipe.mix.enabled,
    )
    optimizer = model_optimizer(
        model, recipe.optim, dtype=dtype, layer_id=model.layer_id, num_layer_ids=model.num_layer_ids
    )

    # ---- run folder ------------------------------------------------------------------------------------------
    facts = {"recipe": recipe_name, "total_steps": plan.total}
    session = Session(recipe, out, manifest=train, overwrite=overwrite, resume=resume, ranks=ranks, facts=facts)
    folder, evaluation_file = session.model_folder, session.folder.path / EVALUATION_FILE
    if session.is_finished(plan.total) and ranks.first(evaluation_file.is_file):
        print(f"the run in {out} is finished: it has done its {plan.total} steps and its evaluation")
        return FinetuneResult(folder, load_evaluation(evaluation_file), load_last_evaluation(session.folder.path))
    lines = [*trained_lines, *merging_lines(model, recipe)]
    for line in [*origin_lines(report), *problem_lines(videos.targets), *lines]:
        print(line)
    decay = recipe.optim.ema_decay
    average = None if decay is None else WeightAverage(model, decay)
    start = session.restore(spread, optimizer, average)
    cost = run_cost(
        cost_of_clip, model, plan, loop, num_videos=len(train.rows), start_step=start, processes=ranks.world_size
    )
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
        balanced=recipe.data.sampling == "balanced",
    )
    measuring = Measuring(recipe, session, videos, plan, training_processor(size), units, spread, ranks, model_class)
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
            measuring=measuring,
            average=average,
        )

        # ---- the result --------------------------------------------------------------------------------------
        for line in session.summary():
            print(line)
        with session.save_on_stop(), interrupt.alone():
            outcome = measuring.finish(interrupt)
        session.close()
    return FinetuneResult(folder, outcome.chosen, outcome.last)


def _finetune_folds(
    recipe: FinetuneRecipe,
    *,
    out: Path,
    overwrite: bool,
    resume: bool,
    model_class: type[VideoMAEForVideoClassification],
    recipe_name: str | None,
) -> FinetuneResult:
    """Fine-tune one model for each fold, and evaluate every video by the one that has not seen it."""
    assert recipe.data.folds is not None
    folder = open_folds(recipe, out, overwrite=overwrite, resume=resume)
    results = []
    for fold in range(1, recipe.data.folds + 1):
        print(f"fold {fold} of {recipe.data.folds}")
        own = replace(recipe, data=replace(recipe.data, fold=fold))
        place = folder / f"fold-{fold}"
        is_there = (place / RECIPE_FILE).is_file()
        one = finetune(own, out=place, resume=is_there, model_class=model_class, recipe_name=recipe_name)
        results.append(one)
    pooled = pooled_evaluation([result.evaluation for result in results])
    pooled.save(folder / EVALUATION_FILE)
    return FinetuneResult(results[0].model_folder, pooled)


def build_classifier(
    recipe: FinetuneRecipe,
    classes: tuple[str, ...],
    model_class: type[VideoMAEForVideoClassification] = VideoMAEForVideoClassification,
    *,
    problem: ProblemType = "single_label_classification",
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
        # Without a word where it is a choice between classes, as in every published classifier.
        **({} if problem == "single_label_classification" else {"problem_type": problem}),
    }
    torch.manual_seed(derive_seed(recipe.loop.seed, "weights"))
    if recipe.init is None:
        model = model_class(recipe.model.build(recipe.clip, **settings))
        initialize_narrow(model.videomae)
        report = None
    else:
        # Channels are changed afterwards: init is read as it is.
        overrides = dict(recipe.model.overrides)
        channels = overrides.pop("num_channels", None)
        wanted = replace(recipe.model, overrides=overrides)
        shape = {"image_size": recipe.model.image_size, "num_frames": recipe.clip.num_frames}
        model, report = load_initial(
            model_class, recipe.init, wanted, has_decoder=False, fresh_head=True, **shape, **settings
        )
        if channels not in (None, model.config.num_channels):
            model = with_channels(model, channels)
    check_clip(recipe.clip, model.config)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(recipe.head.init_scale)
    return model, report
