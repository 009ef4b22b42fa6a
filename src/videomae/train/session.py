"""One training run on disk: its folder, its metrics, its checkpoints, and the way back to all of them.

What the pre-training and the fine-tuning loop share. Knows nothing of videos or losses.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from videomae import __version__
from videomae.engine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from videomae.engine.loop import BadVideoCount, LoopConfig, PendingLosses
from videomae.engine.runlog import MetricsLog, RunFolder
from videomae.errors import CheckpointError, RunError
from videomae.recipes.schema import (
    RECIPE_FILE,
    FinetuneRecipe,
    PretrainRecipe,
    recipe_differences,
    recipe_to_dict,
    recipe_to_yaml,
)

# Settings that may differ between a run and its resumption: they change the speed, not the arithmetic.
FREE_SETTINGS = ("loop.workers", "loop.checkpoint_steps", "loop.keep_checkpoints", "loop.log_steps")


class Session:
    """The disk side of a run.

    Args:
        recipe: The resolved recipe; it is saved in the folder and must not change on resume.
        out: The run folder.
        overwrite: Replace a run that is there.
        resume: Go on from its last checkpoint.
        data_fingerprint: Of the training data; it must not change on resume.

    Raises:
        RunError: If the folder cannot be used.
        CheckpointError: If the run cannot be resumed with this recipe and data.
    """

    def __init__(
        self,
        recipe: PretrainRecipe | FinetuneRecipe,
        out: Path,
        *,
        overwrite: bool,
        resume: bool,
        data_fingerprint: str,
    ) -> None:
        self.loop: LoopConfig = recipe.loop
        self.recipe = recipe_to_dict(recipe)
        self.data_fingerprint = data_fingerprint
        self.folder = RunFolder.open(out, overwrite=overwrite, resume=resume)
        if resume:
            self._check_recipe()
        self.folder.write_text(RECIPE_FILE, recipe_to_yaml(recipe))
        self.metrics = MetricsLog(self.folder.metrics)
        self.bad = BadVideoCount(self.loop.max_bad_fraction)
        self.pending = PendingLosses()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest checkpoint, if there is one, and return the number of steps done.

        Raises:
            CheckpointError: If it belongs to other data or another model.
        """
        path = latest_checkpoint(self.folder.checkpoints)
        step = 0
        if path is not None:
            state = load_checkpoint(path)
            if state["data_fingerprint"] != self.data_fingerprint:
                raise CheckpointError(
                    f"{path} was trained on other data than data.train holds now: restore the videos, or start a new "
                    "run in another folder"
                )
            try:
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
            except (RuntimeError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise CheckpointError(f"{path} does not fit this recipe's model: {reason}") from None
            self.bad.load_state(state["bad"])
            step = int(state["step"])
        self.metrics.truncate_after(step)
        return step

    def log_step(
        self, step: int, *, epoch: float, lr: float, clips: int, loss: Tensor, grad_norm: Tensor
    ) -> float | None:
        """Keep the numbers of a step; every `log_steps` read and write them. Returns the loss if it was read."""
        record = {"step": step, "epoch": round(epoch, 4), "lr": lr, "clips": clips}
        self.pending.add(record, loss=loss, grad_norm=grad_norm)
        return self.flush() if len(self.pending) >= self.loop.log_steps else None

    def flush(self) -> float | None:
        """Write the kept numbers; returns the last loss, or None where there was nothing to write."""
        records = self.pending.read()
        for record in records:
            self.metrics.append(record)
        return records[-1]["loss"] if records else None

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write metrics and a checkpoint."""
        self.flush()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "bad": self.bad.state(),
            "data_fingerprint": self.data_fingerprint,
        }
        save_checkpoint(self.folder.checkpoints, step=step, state=state, keep=self.loop.keep_checkpoints)

    def record(self, **results: Any) -> dict[str, Any]:
        """Return what a model folder tells about its training."""
        return {
            "videomae_version": __version__,
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "data_fingerprint": self.data_fingerprint,
            "recipe": self.recipe,
            "videos_left_out": dict(sorted(self.bad.reasons.items())),
            **results,
        }

    def _check_recipe(self) -> None:
        differences = [
            row
            for row in recipe_differences(saved_recipe(self.folder.path), self.recipe)
            if not row.startswith(tuple(f"{name}:" for name in FREE_SETTINGS))
        ]
        if differences:
            raise CheckpointError(
                f"{self.folder.path} cannot be resumed with other settings ({'; '.join(differences)}): leave them as "
                "they were, or start a new run in another folder"
            )


def saved_recipe(out: Path) -> dict[str, Any]:
    """Read the recipe of a run folder as plain values; see `saved_recipe_path`."""
    content: Mapping[str, Any] = yaml.safe_load(saved_recipe_path(out).read_text(encoding="utf-8"))
    return dict(content)


def saved_recipe_path(out: Path) -> Path:
    """Return the recipe file of a run folder.

    Raises:
        RunError: If there is none.
    """
    path = out / RECIPE_FILE
    if not path.is_file():
        raise RunError(f"{out} holds no {RECIPE_FILE}: there is no run to resume; leave out --resume")
    return path
