"""One training run on disk: its folder, its metrics, its checkpoints, and the way back to all of them.

What the pre-training and the fine-tuning loop share. Knows nothing of videos or losses.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae import __version__
from videomae.engine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from videomae.engine.loop import BadVideoCount, LoopConfig, PendingLosses
from videomae.engine.runlog import MetricsLog, RunFolder
from videomae.errors import CheckpointError
from videomae.recipes.schema import (
    RECIPE_FILE,
    FinetuneRecipe,
    PretrainRecipe,
    recipe_to_dict,
    recipe_to_yaml,
)
from videomae.train.resume import allowed_changes, record_resume, record_start


class Session:
    """The disk side of a run.

    Args:
        recipe: The resolved recipe; it is saved in the folder. What may change on resume: `train/resume.py`.
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
        self._recipe_text = recipe_to_yaml(recipe)
        self._changes = allowed_changes(recipe, self.folder.path) if resume else None
        if not resume:
            record_start(self.folder.path)
            self.folder.write_text(RECIPE_FILE, self._recipe_text)
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
        if self._changes is not None:  # only now is it known that the run can go on, and from where
            print(f"resuming {self.folder.path} after step {step}")
            for change in self._changes:
                print(f"  {change.line()}")
            record_resume(self.folder.path, step=step, changes=self._changes)
            self.folder.write_text(RECIPE_FILE, self._recipe_text)
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
