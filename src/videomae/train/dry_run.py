"""What a training command would do, worked out without a step, a weight or a file."""

from __future__ import annotations

from dataclasses import replace

import torch

from videomae.data.scan import scan_unlabelled
from videomae.data.skip_list import without_skipped
from videomae.data.splits import training_rows
from videomae.engine.optim import scaled_lr
from videomae.engine.precision import compute_dtype, pick_device
from videomae.engine.schedule import step_counts
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.held_out import hold_out
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.train.adapting import choose_trained
from videomae.train.configs import PlanConfig
from videomae.train.cost import ClipCost, classification_clip_cost, duration_text, pretraining_clip_cost
from videomae.train.decoding import clips_decoded_at_once
from videomae.train.finetune import build_classifier
from videomae.train.labelled import training_and_validation
from videomae.train.memory import StepMemory, step_memory
from videomae.train.merging import merged_tokens, merging_lines
from videomae.train.pretrain import build_model
from videomae.train.step import StepPlan, muon_matrices, plan_steps
from videomae.train.trained import trained_parts

TERA, EXA = 1e12, 1e18


def dry_run(recipe: PretrainRecipe | FinetuneRecipe, config: PlanConfig) -> list[str]:
    """Return for people what a run would take.

    Raises:
        VideoMAEError: If the data, the recipe or the model to start from cannot be used.
    """
    num_videos = config.num_videos or _num_videos(recipe)
    plan = plan_steps(recipe, num_videos=num_videos)
    model = _model(recipe)
    trained_lines: list[str] = []
    if isinstance(recipe, PretrainRecipe):
        clip = pretraining_clip_cost(model.config, recipe)
    else:
        assert isinstance(model, VideoMAEForVideoClassification)
        trained_lines = choose_trained(model, recipe)
        merged = merged_tokens(model, recipe)
        clip = classification_clip_cost(model.config, trained_parts(model, merged=merged), merged=merged)
        trained_lines += merging_lines(model, recipe)
    length = f"{plan.total / plan.steps_per_epoch:.4g} epochs of {num_videos:,} videos"
    flops = float(clip.step_flops) * plan.batch_size
    return [
        "dry run: nothing is trained or written",
        f"parameters: {sum(one.numel() for one in model.parameters()):,}",
        *trained_lines,
        f"steps: {plan.total:,}, {length}, {plan.batch_size * plan.total:,} clips",
        _batch_line(recipe, plan, config.processes),
        _rate_line(recipe, plan),
        clip.line(),
        f"operations: {flops / TERA:.4g} TFLOP a step, {flops * plan.total / EXA:.3g} EFLOP in all",
        memory_of(
            recipe, model, clip, clips=_clips_at_once(recipe, plan, config.processes), processes=config.processes
        ).line(),
        _duration_line(plan, config.rate),
    ]


def memory_of(
    recipe: PretrainRecipe | FinetuneRecipe,
    model: VideoMAEForPreTraining | VideoMAEForVideoClassification,
    clip: ClipCost,
    *,
    clips: int,
    processes: int,
) -> StepMemory:
    """Return the memory of a step that computes so many clips at once on each of so many devices."""
    matrices = muon_matrices(model, recipe.optim)
    bf16, cuda = _computes_in_bf16(recipe), _device(recipe) == "cuda"
    trained, merged = None, 0
    if isinstance(recipe, FinetuneRecipe) and isinstance(model, VideoMAEForVideoClassification):
        merged = merged_tokens(model, recipe)
        trained = trained_parts(model, bf16=bf16, cuda=cuda, merged=merged)
    return step_memory(
        model.config,
        clips=clips,
        visible=clip.visible,
        decoded=clip.decoded,
        bf16=bf16,
        cuda=cuda,
        num_parameters=sum(one.numel() for one in model.parameters()),
        num_matrix_values=sum(one.numel() for one in model.parameters() if one.ndim > 1),
        muon_values=sum(
            one.numel() for name, one in model.named_parameters() if name in matrices and one.requires_grad
        ),
        shards=processes if recipe.parallel.kind == "fsdp" else 1,
        averaged=recipe.optim.ema_decay is not None,
        checkpointed=recipe.loop.activation_checkpointing,
        decoded_at_once=clips_decoded_at_once(model.config) if _decodes_in_parts(recipe) else None,
        trained=trained,
        merged=merged,
    )


def _decodes_in_parts(recipe: PretrainRecipe | FinetuneRecipe) -> bool:
    return isinstance(recipe, PretrainRecipe) and _device(recipe) == "cpu" and recipe.parallel.kind == "ddp"


def _num_videos(recipe: PretrainRecipe | FinetuneRecipe) -> int:
    if isinstance(recipe, FinetuneRecipe):
        return len(training_and_validation(recipe)[0].rows)
    (whole,) = without_skipped([scan_unlabelled(recipe.data.train)], recipe.data.skip)
    return len(hold_out(training_rows(whole), recipe.monitor, seed=recipe.loop.seed).train.rows)


def _model(recipe: PretrainRecipe | FinetuneRecipe) -> VideoMAEForPreTraining | VideoMAEForVideoClassification:
    """Return the model of a run, without values where it starts from random ones."""
    with torch.device("meta") if recipe.init is None else torch.device("cpu"):
        if isinstance(recipe, PretrainRecipe):  # how the decoder's values are drawn changes no size
            return build_model(replace(recipe, decoder_init="xavier"))[0]
        return build_classifier(recipe, ("class",))[0]


def _device(recipe: PretrainRecipe | FinetuneRecipe) -> str:
    """Return the type of a run's device, which need not be here."""
    return recipe.loop.device if recipe.loop.device != "auto" else pick_device("auto").type


def _computes_in_bf16(recipe: PretrainRecipe | FinetuneRecipe) -> bool:
    """Tell the precision of a run, also of one for a device that is not here."""
    precision = recipe.loop.precision
    if precision != "auto":
        return precision == "bf16"
    return _device(recipe) == "cuda" or compute_dtype(precision, pick_device(recipe.loop.device)) == torch.bfloat16


def _clips_at_once(recipe: PretrainRecipe | FinetuneRecipe, plan: StepPlan, processes: int) -> int:
    share = -(-plan.batch_size // processes)
    return min(share, recipe.loop.micro_batch or share)


def _batch_line(recipe: PretrainRecipe | FinetuneRecipe, plan: StepPlan, processes: int) -> str:
    share = -(-plan.batch_size // processes)
    at_once = _clips_at_once(recipe, plan, processes)
    each = f"{processes} processes of {share}" if processes > 1 else "one process"
    parts = f", {at_once} per forward pass in {-(-share // at_once)} parts" if at_once < share else ""
    return f"global batch: {plan.batch_size} clips a step, {each}{parts}"


def _rate_line(recipe: PretrainRecipe | FinetuneRecipe, plan: StepPlan) -> str:
    schedule, optim = recipe.schedule, recipe.optim
    warmup = step_counts(schedule, steps_per_epoch=plan.steps_per_epoch).warmup
    peak, final = (scaled_lr(rate, plan.batch_size) for rate in (optim.base_lr, optim.min_lr))
    if schedule.shape == "constant":
        after = f"constant, and over the last {schedule.cooldown_fraction:.0%} falling linearly"
    else:
        after = "then a half cosine down"
    return (
        f"learning rate: {peak:.4g} at its peak (optim.base_lr {optim.base_lr:.4g} x {plan.batch_size} / 256) after "
        f"{warmup:,} steps of warm-up, {after} to {final:.4g}"
    )


def _duration_line(plan: StepPlan, rate: float | None) -> str:
    if rate is None:
        return "duration: give --plan.rate CLIPS_PER_SECOND to have it computed"
    seconds = plan.batch_size * plan.total / rate
    return f"duration: {duration_text(seconds)} ({seconds / 3600:,.1f} h) at {rate:,.4g} clips/s"
