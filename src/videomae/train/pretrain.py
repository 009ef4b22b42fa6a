"""Masked pre-training on unlabelled videos.

One clip's way: manifest row -> frame numbers -> uint8 frames -> normalised on the device -> visible tokens ->
encoder -> decoder -> loss. Run as `videomae pretrain`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from videomae.data.augment import normalize
from videomae.data.datasets import PretrainingDataset
from videomae.data.loader import train_loader
from videomae.data.manifest import scan_unlabelled
from videomae.engine.interrupt import graceful_interrupt
from videomae.engine.optim import build_optimizer, clip_and_norm, param_groups, scaled_lr
from videomae.engine.precision import autocast, compute_dtype, pick_device
from videomae.engine.progress import TrainingProgress
from videomae.engine.schedule import learning_rates, set_learning_rate, step_counts
from videomae.engine.seeding import derive_seed
from videomae.inference.loaded import record_from_clip
from videomae.model.encoder import native_grid
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.recipes.schema import PretrainRecipe
from videomae.train.initial import as_built, load_initial, origin_lines
from videomae.train.resume import resolve
from videomae.train.session import Session
from videomae.weights.report import LoadReport
from videomae.weights.saving import save_record
from videomae.weights.sources import RUN_FOLDER


def pretrain(recipe: PretrainRecipe, *, out: Path, overwrite: bool = False, resume: bool = False) -> Path:
    """Pre-train a network on a folder of videos.

    Args:
        recipe: Everything that the result depends on.
        out: Run folder: recipe, metrics, checkpoints and, at the end, the model folder.
        overwrite: Replace a run that is there.
        resume: Go on from the last checkpoint; every later loss equals the uninterrupted run's.

    Returns:
        The model folder, `out/model`.

    Raises:
        VideoMAEError: If the data, the recipe or the folder cannot be used, or too many videos are bad.
        KeyboardInterrupt: After Ctrl-C; the run is saved first.
    """
    # ---- data and model: all that can be wrong is found before the run folder is touched --------------------
    recipe = resolve(recipe, out, resume=resume)
    loop = recipe.loop
    device = pick_device(loop.device)
    dtype = compute_dtype(loop.precision, device)
    manifest = scan_unlabelled(recipe.data.train)
    model, report = build_model(recipe)
    network = as_built(recipe.model, model.config, init=recipe.init, has_decoder=True)
    recipe = replace(recipe, model=network)
    model = model.to(device).train()
    grid = native_grid(model.config)
    dataset = PretrainingDataset(
        manifest,
        clip=recipe.clip,
        size=recipe.model.image_size,
        augment=recipe.augment,
        mask=recipe.mask,
        grid=grid,
        seed=loop.seed,
    )

    # ---- optimiser and schedule ------------------------------------------------------------------------------
    batch_size = min(loop.batch_size, len(manifest.rows))
    steps_per_epoch = len(manifest.rows) // batch_size
    total, warmup = step_counts(recipe.schedule, steps_per_epoch=steps_per_epoch)
    peak, final = scaled_lr(recipe.optim.base_lr, batch_size), scaled_lr(recipe.optim.min_lr, batch_size)
    rates = learning_rates(total, warmup, peak=peak, final=final)
    parameters = list(model.parameters())
    optimizer = build_optimizer(
        param_groups(
            model.named_parameters(), weight_decay=recipe.optim.weight_decay, no_decay=model.no_weight_decay()
        ),
        recipe.optim,
    )

    # ---- run folder ------------------------------------------------------------------------------------------
    session = Session(recipe, out, overwrite=overwrite, resume=resume, data_fingerprint=manifest.fingerprint())
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
        TrainingProgress("pre-training", total_steps=total, start_step=start) as progress,
    ):
        for step, batch in enumerate(loader, start=start + 1):
            session.bad.add(batch_size, {one.path: one.reason for one in batch.bad})
            loss = norm = torch.zeros((), device=device)
            lr = float(rates[step - 1])
            if len(batch.clips):
                batch = batch.to(device, non_blocking=True)
                torch.manual_seed(derive_seed(loop.seed, "step", step))  # drop path: a function of the step alone
                set_learning_rate(optimizer, lr)
                clips = normalize(batch.clips, mean, std)  # [B, T, C, H, W]
                with autocast(device, dtype):
                    output = model(clips, visible_indices=batch.visible, decoded_indices=batch.decoded)
                loss = output.loss
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
                progress.say(f"saved at step {step}; go on with: videomae pretrain --resume --out {out}")
                raise KeyboardInterrupt

    # ---- the result ------------------------------------------------------------------------------------------
    for line in session.bad.summary():
        print(line)
    folder = session.folder.path / RUN_FOLDER
    model.save_pretrained(folder)
    training_processor(recipe.model.image_size).save_pretrained(folder)
    record = session.record(stage="pretraining", steps=total)
    save_record(folder, {**record_from_clip(recipe.clip), "training": record})
    return folder


def build_model(recipe: PretrainRecipe) -> tuple[VideoMAEForPreTraining, LoadReport | None]:
    """Return the network to train, and where its tensors came from (None: they depend on the seed alone).

    Raises:
        WeightsError: If `recipe.init` cannot be loaded or does not fit.
        ConfigError: If the recipe's network cannot be.
    """
    torch.manual_seed(derive_seed(recipe.loop.seed, "weights"))
    if recipe.init is not None:
        return load_initial(
            VideoMAEForPreTraining,
            recipe.init,
            recipe.model,
            has_decoder=True,
            image_size=recipe.model.image_size,
            num_frames=recipe.clip.num_frames,
        )
    # The final encoder norm: the original pre-training network and every published one have it.
    return VideoMAEForPreTraining(recipe.model.build(recipe.clip, use_mean_pooling=False)), None


def training_processor(image_size: int) -> VideoMAEImageProcessor:
    """Return the processor that does at prediction time what the training loops do: ImageNet mean and deviation."""
    return VideoMAEImageProcessor(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
