"""Masked pre-training on unlabelled videos.

From file to loss: manifest row -> frame indices -> uint8 frames -> normalized on the device -> visible tokens ->
encoder -> decoder -> loss. Run as `videomae pretrain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from videomae.data.datasets import PretrainingDataset, SampleKey
from videomae.data.device_augment import DeviceAugment
from videomae.data.loader import Batch, Shard, train_loader
from videomae.data.manifest import PROCEDURAL, Manifest, procedural_seed
from videomae.data.procedural_source import ProceduralDataset
from videomae.data.scan import scan_unlabelled
from videomae.data.skip_list import without_skipped
from videomae.data.splits import not_used_lines, training_rows
from videomae.engine.average import WeightAverage
from videomae.engine.compiled import is_worth_compiling
from videomae.engine.distributed import Ranks, joined
from videomae.engine.interrupt import graceful_interrupt
from videomae.engine.precision import autocast, compute_dtype, pick_device
from videomae.engine.runlog import owned_run
from videomae.engine.seeding import derive_seed
from videomae.errors import ConfigError
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.monitor.held_out import hold_out
from videomae.monitor.learning import LearningMonitor, RunFacts
from videomae.patches import TokenGrid, membership
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.recipes.schema import PretrainRecipe
from videomae.sharing.record import ModelRecord, TrainingRecord, save_record
from videomae.train.cost import pretraining_clip_cost, run_cost
from videomae.train.decoding import decode_in_parts
from videomae.train.gradients import Gradients
from videomae.train.initial import as_built, load_initial, origin_lines
from videomae.train.lookup import initialize_lookup
from videomae.train.loop import train_steps
from videomae.train.resume import resolve
from videomae.train.session import Session
from videomae.train.spreading import spread_lines, spread_model, step_graph, whole_model
from videomae.train.step import model_optimizer, plan_steps
from videomae.weights.report import LoadReport


def pretrain(
    recipe: PretrainRecipe,
    *,
    out: Path,
    overwrite: bool = False,
    resume: bool = False,
    model_class: type[VideoMAEForPreTraining] = VideoMAEForPreTraining,
    recipe_name: str | None = None,
) -> Path:
    """Pre-train a model on a folder of videos.

    Args:
        recipe: Everything that the result depends on.
        out: Run folder: recipe, metrics, checkpoints and, at the end, the model folder.
        overwrite: Replace a run that is there.
        resume: Go on from the last checkpoint; every later loss equals the uninterrupted run's.
        model_class: What is trained, such as a subclass with another encoder.
        recipe_name: What the run's records call the recipe.

    Returns:
        The model folder, `out/model`.

    Raises:
        VideoMAEError: If the data, the recipe or the folder cannot be used, too many videos are bad, or training
            diverges. The last finished step is saved first.
        StopRequested: A KeyboardInterrupt, after SIGINT or SIGTERM. The last finished step is saved first.
    """
    recipe = resolve(recipe, out, resume=resume)
    device = pick_device(recipe.loop.device)
    with joined(device, needs_group=recipe.parallel.kind == "fsdp") as ranks, owned_run(out, ranks):
        return _pretrain(recipe, out, overwrite, resume, model_class, ranks, recipe_name)


def _pretrain(
    recipe: PretrainRecipe,
    out: Path,
    overwrite: bool,
    resume: bool,
    model_class: type[VideoMAEForPreTraining],
    ranks: Ranks,
    recipe_name: str | None,
) -> Path:
    # ---- data and model: all that can be wrong is found before the run folder is touched --------------------
    loop = recipe.loop
    device = pick_device(loop.device)
    dtype = compute_dtype(loop.precision, device)
    (all_videos,) = without_skipped([scan_unlabelled(recipe.data.train)], recipe.data.skip)
    videos = hold_out(training_rows(all_videos), recipe.monitor, seed=loop.seed)
    manifest = videos.train
    model, report = build_model(recipe, model_class)
    built = as_built(recipe.model, model.config, init=recipe.init, has_decoder=True)
    recipe = replace(recipe, model=built)
    model = model.to(device).train()
    if recipe.parallel.kind == "ddp":  # with FSDP no process has the decoder's weights outside of its calls
        decode_in_parts(model)
    dataset = training_data(recipe, manifest, native_grid(model.config), device=device)
    mean, std = (torch.tensor(one, device=device) for one in (IMAGENET_MEAN, IMAGENET_STD))
    compiles = is_worth_compiling(loop.compile, device)
    augment = DeviceAugment(recipe.augment, seed=loop.seed, mean=mean, std=std, compiles=compiles)
    plan = plan_steps(recipe, num_videos=len(manifest.rows))
    cost_of_clip = pretraining_clip_cost(model.config, recipe)
    spread = spread_model(model, recipe, ranks, dtype=dtype)

    def inputs_of(clips: Batch, keys: Sequence[SampleKey], step: int) -> tuple[Tensor, ...]:
        assert clips.visible is not None
        assert clips.decoded is not None
        return augment(clips_on_device(dataset, clips), keys), clips.visible, clips.decoded

    def loss_of(pixels: Tensor, visible: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, dtype):  # pixels: [B, T, C, H, W]
            output = spread.module(pixels, visible_indices=visible, decoded_indices=decoded)
        return output.loss, output.logits

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
        count=lambda batch: num_counted_tokens(batch, native_grid(model.config).num_tokens),
    )
    optimizer = model_optimizer(model, recipe.optim, dtype=dtype)

    # ---- run folder ------------------------------------------------------------------------------------------
    facts = {"recipe": recipe_name, "total_steps": plan.total}
    session = Session(recipe, out, manifest=manifest, overwrite=overwrite, resume=resume, ranks=ranks, facts=facts)
    folder = session.model_folder
    if session.is_finished(plan.total):
        print(f"the run in {out} is finished: it has done its {plan.total} steps")
        return folder
    for line in (*not_used_lines(all_videos, training_rows(all_videos)), *origin_lines(report)):
        print(line)
    decay = recipe.optim.ema_decay
    average = None if decay is None else WeightAverage(model, decay)
    start = session.restore(spread, optimizer, average)
    monitor = None
    if recipe.parallel.kind == "fsdp" and recipe.monitor.enabled:
        print("monitor: nothing is measured, since parallel.kind is fsdp: no process has the whole model")
    elif ranks.is_first:
        monitor = LearningMonitor(
            recipe.monitor,
            videos,
            model,
            RunFacts(recipe.clip, recipe.mask, loop.seed, plan.batch_size, plan.rates.tolist()),
            folder=session.folder.path,
            autocast=lambda: autocast(device, dtype),
        )
    cost = run_cost(
        cost_of_clip, model, plan, loop, num_videos=len(manifest.rows), start_step=start, processes=ranks.world_size
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
    )
    with graceful_interrupt(agreed=ranks.world_size > 1) as interrupt:
        train_steps(
            "pre-training",
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
            monitor=monitor,
        )

        # ---- the result --------------------------------------------------------------------------------------
        for line in session.summary():
            print(line)
        trained = whole_model(spread, model_class, ranks)

        def write() -> None:
            trained.save_pretrained(folder)
            training_processor(recipe.model.image_size).save_pretrained(folder)
            training = TrainingRecord.from_dict(session.record(stage="pretraining", steps=plan.total))
            save_record(folder, ModelRecord(sampling=recipe.clip, training=training))

        ranks.first(write)
        session.close()
    return folder


def num_counted_tokens(batch: Batch, num_tokens: int) -> int:
    """Return how many decoded tokens of a batch, on the CPU, are in the loss: those that the encoder does not see."""
    assert batch.visible is not None
    assert batch.decoded is not None
    seen = membership(batch.visible, num_tokens).gather(1, batch.decoded)  # of a black clip all
    return int((~seen).sum())


def training_data(
    recipe: PretrainRecipe, manifest: Manifest, grid: TokenGrid, *, device: torch.device
) -> PretrainingDataset | ProceduralDataset:
    """Return the samples of a run: clips of files, or procedural ones.

    Raises:
        ConfigError: If size, masks and grid do not fit each other, or clips that are not decoded were to be repeated.
    """
    clip, size, mask, seed = recipe.clip, recipe.model.image_size, recipe.mask, recipe.loop.seed
    if procedural_seed(manifest.root) is not None:
        if recipe.augment.repeats > 1:
            raise ConfigError(
                f"augment.repeats is {recipe.augment.repeats}, which spares decoding, but the clips of {PROCEDURAL} "
                "are drawn, not decoded: use augment.repeats 1"
            )
        return ProceduralDataset(manifest, clip=clip, size=size, mask=mask, grid=grid, seed=seed, device=device)
    return PretrainingDataset(
        manifest,
        clip=clip,
        size=size,
        augment=recipe.augment,
        mask=mask,
        grid=grid,
        seed=seed,
        decoder=recipe.data.decoder,
    )


def clips_on_device(dataset: PretrainingDataset | ProceduralDataset, batch: Batch) -> Tensor:
    """Return the clips of a batch that is on the device, `[B, T, C, S, S]` uint8; some are drawn only now."""
    if isinstance(dataset, ProceduralDataset) and not dataset.drawn_here:
        return dataset.clips_of(batch.indices, epoch=batch.epoch)
    return batch.clips


def build_model(
    recipe: PretrainRecipe, model_class: type[VideoMAEForPreTraining] = VideoMAEForPreTraining
) -> tuple[VideoMAEForPreTraining, LoadReport | None]:
    """Return the model to train, and where its tensors came from (None: they depend on the seed alone).

    Raises:
        WeightsError: If `recipe.init` cannot be loaded or does not fit.
        ConfigError: If the recipe's model cannot be built.
    """
    torch.manual_seed(derive_seed(recipe.loop.seed, "weights"))
    if recipe.init is not None:
        return load_initial(
            model_class,
            recipe.init,
            recipe.model,
            has_decoder=True,
            image_size=recipe.model.image_size,
            num_frames=recipe.clip.num_frames,
        )
    # The final encoder norm: the original pre-training model and every published one have it.
    model = model_class(recipe.model.build(recipe.clip, use_mean_pooling=False))
    if recipe.decoder_init == "lookup":
        initialize_lookup(model)
    return model, None


def training_processor(image_size: int) -> VideoMAEImageProcessor:
    """Return the processor that does at prediction time what the training loops do: ImageNet mean and std."""
    return VideoMAEImageProcessor(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
