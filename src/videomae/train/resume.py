"""Going on with a saved run: which settings may differ then, which may not and why, and the record of what did.

For device and precision `auto` means "as the run has used so far" when a run is resumed; any other value is an
explicit wish and is obeyed. Fields that an older version did not have take their defaults, so a new field's default
must do what the code did before the field existed.
"""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from videomae import __version__
from videomae.engine.precision import DeviceName, Precision, compute_dtype, pick_device
from videomae.engine.runlog import HISTORY_FILE, MetricsLog
from videomae.errors import CheckpointError, ConfigError, RunError
from videomae.recipes.schema import (
    FOLDERS,
    RECIPE_FILE,
    FinetuneRecipe,
    PretrainRecipe,
    Recipe,
    load_recipe,
    read_recipe_file,
    recipe_differences,
    recipe_to_dict,
    unknown_fields,
)
from videomae.video.decoders import check_decoder

SPEED = "changes nothing but speed"
LATER_LOSSES = "changes the run from here on: later losses differ from the uninterrupted run's"
GIVES_UP = "changes only when the run gives up"
ROUNDING = "changes later losses by rounding alone"
EVALUATION = "changes only the evaluation after the last step"
# The longest entry that a setting's name starts with rules it, in either table. A test finds a rule for every field.
MAY_CHANGE = {
    "data.decoder": ROUNDING,
    "data.train": "changes nothing: the videos are proved to be the same",
    "data.skip": "changes only the evaluation: the videos that are trained on are proved to be the same",
    "data.val": EVALUATION,
    "data.test": EVALUATION,
    "evaluation": EVALUATION,
    "loop.activation_checkpointing": ROUNDING,
    "loop.checkpoint_steps": SPEED,
    "loop.device": LATER_LOSSES,
    "loop.keep_checkpoints": SPEED,
    "loop.log_steps": SPEED,
    "loop.max_bad_fraction": GIVES_UP,
    "loop.max_skipped_steps": GIVES_UP,
    "loop.micro_batch": ROUNDING,
    "loop.compile": LATER_LOSSES,
    "loop.cuda_graph": ROUNDING,
    "loop.tracker": SPEED,
    "loop.precision": LATER_LOSSES,
    "loop.workers": SPEED,
    "optim.base_lr": LATER_LOSSES,
    "optim.clip_grad": LATER_LOSSES,
    "optim.min_lr": LATER_LOSSES,
}
MAY_NOT_CHANGE = {
    "augment": "every video would be cropped otherwise than before",
    "clip": "the model has been trained on clips of the other kind",
    "decoder_init": "the run has started from the other values",
    "data.fold": "it decides which videos are trained on",
    "data.folds": "it decides which videos are trained on",
    "data.sampling": "it decides in which order the videos come",
    "data.val_fraction": "it decides which videos are trained on",
    "data.values": "the model would learn something else",
    "head": "it is part of the model and its loss",
    "init": "the run has started from the other weights",
    "lora": "it decides which weights are trained",
    "loop.batch_size": "steps, epochs and learning rates follow from it",
    "loop.seed": "every random draw follows from it",
    "mask": "the loss would be another one",
    "mix": "the loss would be another one",
    "monitor": "it decides which videos are trained on, and what monitor.jsonl holds",
    "model": "the checkpoint's tensors have the shapes of the other model",
    "parallel": "the checkpoints of the two kinds differ",
    "optim": "the checkpoint holds the optimizer's state for the other value",
    "speed": "the weights have been trained on clips with another number of tokens",
    "schedule": "the learning rate of every step, of those done too, follows from the length of the run",
    "validation": "it decides which weights are the best so far",
}


@dataclass(frozen=True)
class Change:
    """A setting that is another one from here on."""

    name: str
    """As in the recipe, for example `optim.base_lr`."""
    old: Any
    """Plain JSON value until now."""
    new: Any
    """Plain JSON value from now on."""
    effect: str
    """What it does to the run, from `MAY_CHANGE`."""

    def line(self) -> str:
        """Return it for people."""
        return f"{self.name}: {self.old} -> {self.new} ({self.effect})"


def saved_recipe_path(out: Path) -> Path:
    """Return the recipe file of a run folder.

    Raises:
        RunError: If there is none.
    """
    path = out / RECIPE_FILE
    if not path.is_file():
        raise RunError(f"{out} holds no {RECIPE_FILE}: there is no run to resume; leave out --resume")
    return path


def saved_recipe(kind: type[Recipe], out: Path) -> Recipe:
    """Read the recipe of a run, fields that it lacks filled with their defaults.

    Raises:
        RunError: If there is none.
        CheckpointError: If it is of the other kind of run, or has a field that this version does not know.
        ConfigError: If a value cannot be.
    """
    path = saved_recipe_path(out)
    values = read_recipe_file(path)
    unknown = unknown_fields(kind, values)
    other = next(one for one in FOLDERS if one is not kind)
    if unknown and not unknown_fields(other, values):
        raise CheckpointError(
            f"{out} is no {FOLDERS[kind]} run: resume it with videomae {FOLDERS[other]} --resume --out {out}"
        )
    if unknown:
        raise CheckpointError(
            f"{path}, written by videomae {_version_of(out)}, has settings that videomae {__version__} does not know "
            f"({', '.join(unknown)}): resume with the version that wrote it, or a newer one"
        )
    return without_monitor(load_recipe(kind, path)) if "monitor" not in values else load_recipe(kind, path)


def without_monitor(recipe: Recipe) -> Recipe:
    """Switch the monitor off: versions that had none trained on all videos."""
    if isinstance(recipe, PretrainRecipe):
        return dataclasses.replace(recipe, monitor=dataclasses.replace(recipe.monitor, enabled=False))
    return recipe


def resolve(recipe: Recipe, out: Path, *, resume: bool) -> Recipe:
    """Replace `auto` for device and precision by what will be used: what is here, or what the resumed run has used.

    Args:
        recipe: As it was read.
        out: The run folder; it is read only where the run is resumed.
        resume: Go on with the run that is there.

    Raises:
        RunError: If there is no run to resume.
        CheckpointError: If the resumed run's device is not here and no other is asked for, or its recipe is of
            another kind or version.
        ConfigError: If the device or the decoder that is asked for is not here.
    """
    loop = recipe.loop
    check_decoder(recipe.data.decoder, workers=loop.workers)
    if resume:
        saved = saved_recipe(type(recipe), out)
        if loop.device in ("auto", saved.loop.device):
            _check_device(saved, out)
            loop = dataclasses.replace(loop, device=saved.loop.device)
        if loop.precision == "auto":
            loop = dataclasses.replace(loop, precision=saved.loop.precision)
        if "monitor" not in read_recipe_file(saved_recipe_path(out)):
            recipe = without_monitor(recipe)
        if not _has_history(out):
            recipe = _without_ignored_model(recipe)
    device = pick_device(loop.device)
    precision: Precision = "bf16" if compute_dtype(loop.precision, device) == torch.bfloat16 else "fp32"
    loop = dataclasses.replace(loop, device=cast(DeviceName, device.type), precision=precision)
    recipe = dataclasses.replace(recipe, loop=loop)
    if isinstance(recipe, FinetuneRecipe) and recipe.evaluation.precision == "auto":
        evaluation = dataclasses.replace(recipe.evaluation, precision=loop.precision)
        recipe = dataclasses.replace(recipe, evaluation=evaluation)
    return recipe


def allowed_changes(recipe: PretrainRecipe | FinetuneRecipe, out: Path) -> list[Change]:
    """Compare a recipe, resolved, with the one that is saved with the run.

    Raises:
        CheckpointError: If a setting differs that may not; the message says why for each.
    """
    kind: type[Any] = type(recipe)
    saved: PretrainRecipe | FinetuneRecipe = saved_recipe(kind, out)
    if not _has_history(out) and saved.init is not None:
        # An older version wrote a preset and overrides that it had not used, since init says what the model is.
        model = dataclasses.replace(saved.model, preset=recipe.model.preset, overrides=recipe.model.overrides)
        saved = dataclasses.replace(saved, model=model)
    changes, refused = [], []
    for name, old, new in recipe_differences(recipe_to_dict(saved), recipe_to_dict(recipe)):
        rule = rule_of(name)
        if old == "auto":
            changes.append(Change(name, old, new, "the run did not say what it has used"))
        elif rule in MAY_CHANGE:
            changes.append(Change(name, old, new, MAY_CHANGE[rule]))
        else:
            refused.append(f"{name}: {old} -> {new}, but {MAY_NOT_CHANGE[rule]}")
    if refused:
        raise CheckpointError(
            f"{out} cannot be resumed with other settings ({'; '.join(refused)}): leave them as they were, or start "
            f"a new run from this one's weights with --init {out} and another --out"
        )
    return changes


def rule_of(name: str) -> str:
    """Return the entry of `MAY_CHANGE` or `MAY_NOT_CHANGE` that rules a setting."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(prefix for prefix in prefixes if prefix in MAY_CHANGE or prefix in MAY_NOT_CHANGE)


def record_start(out: Path, *, num_processes: int) -> None:
    """Begin the history of a run."""
    _append(out, {"event": "started", "processes": num_processes})


def record_resume(out: Path, *, step: int, changes: list[Change], num_processes: int) -> None:
    """Add to the history of a run that it goes on from a step, with which settings changed."""
    changed = [dataclasses.asdict(one) for one in changes]
    _append(out, {"event": "resumed", "step": step, "processes": num_processes, "changes": changed})


def record_end(
    out: Path, event: str, *, step: int, clips_per_second: float | None, error: BaseException | None
) -> None:
    """Add to the history of a run how it has ended: `finished`, `stopped` by a signal, or `failed`.

    Args:
        out: The run folder.
        event: One of these.
        step: Steps done.
        clips_per_second: Mean over the steps since it was started or resumed; None where there were none.
        error: What ended it, if anything.
    """
    ended: dict[str, Any] = {"event": event, "step": step}
    if clips_per_second is not None:
        ended["clips_per_second"] = float(f"{clips_per_second:.4g}")
    if error is not None:
        ended["error"] = " ".join(str(error).split()) or type(error).__name__
    _append(out, ended)


def _append(out: Path, event: dict[str, Any]) -> None:
    versions = {"videomae_version": __version__, "torch_version": torch.__version__}
    time = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    MetricsLog(out / HISTORY_FILE).append({**event, "time": time, **versions})


def _has_history(out: Path) -> bool:
    return (out / HISTORY_FILE).is_file()


def _version_of(out: Path) -> str:
    """Return the version that has last worked on a run."""
    events = MetricsLog.read(out / HISTORY_FILE) if _has_history(out) else []
    return str(events[-1].get("videomae_version", "of unknown version")) if events else "of unknown version"


def _without_ignored_model(recipe: Recipe) -> Recipe:
    """Take out the preset and overrides that an older version wrote beside `init` without using them."""
    if recipe.init is None:
        return recipe
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, preset=None, overrides={}))


def _check_device(saved: PretrainRecipe | FinetuneRecipe, out: Path) -> None:
    try:
        pick_device(saved.loop.device)
    except ConfigError:
        raise CheckpointError(
            f"{out} has been computed on {saved.loop.device}, which torch does not find here: give --loop.device cpu "
            "or another that is here to continue with it; later losses then differ from the uninterrupted run's"
        ) from None
