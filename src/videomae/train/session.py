"""One training run on disk: its folder, its metrics, its checkpoints, and how it resumes.

What the pre-training and the fine-tuning loop share.
"""

from __future__ import annotations

import contextlib
import platform
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae import __version__
from videomae.data.manifest import Manifest
from videomae.engine.average import WeightAverage
from videomae.engine.checkpoint import folder_state, latest_checkpoint, load_checkpoint, save_checkpoint
from videomae.engine.distributed import Ranks
from videomae.engine.environment import environment, record_environment
from videomae.engine.interrupt import StopRequested
from videomae.engine.loop import BadVideoCount, LoopConfig, PendingSteps, SkippedSteps
from videomae.engine.optim import RunOptimizer
from videomae.engine.parallel import SpreadModel, not_finite
from videomae.engine.progress import MeanSpeed, tell
from videomae.engine.runlog import MetricsLog, RunFolder
from videomae.engine.sharded_checkpoint import ShardedCheckpoints, load_sharded
from videomae.engine.trackers import RunTracker, check_tracker
from videomae.errors import CheckpointError, RunError, VideoMAEError
from videomae.recipes.schema import (
    FOLDERS,
    RECIPE_FILE,
    FinetuneRecipe,
    PretrainRecipe,
    recipe_to_dict,
    recipe_to_yaml,
)
from videomae.sharing.record import load_record
from videomae.train.gradients import WholeStep
from videomae.train.resume import EVALUATION, Change, allowed_changes, record_end, record_resume, record_start
from videomae.train.step import StepPlan
from videomae.weights.sources import RUN_FOLDER

MAX_RECENT = 200  # steps of which the newest records are kept


class Session:
    """The disk side of a run.

    Args:
        recipe: The resolved recipe; it is saved in the folder. What may change on resume: `train/resume.py`.
        out: The run folder.
        manifest: The training videos; they must not change on resume.
        overwrite: Replace a run that is there.
        resume: Go on from its last checkpoint.
        ranks: The processes of the run; the first alone writes, all call every method and get the same errors.
        facts: What its folder is to keep of this start beside the environment, plain values.

    Raises:
        RunError: If the folder cannot be used.
        CheckpointError: If the run cannot be resumed with this recipe.
    """

    def __init__(
        self,
        recipe: PretrainRecipe | FinetuneRecipe,
        out: Path,
        *,
        manifest: Manifest,
        overwrite: bool,
        resume: bool,
        ranks: Ranks,
        facts: Mapping[str, Any],
    ) -> None:
        self.loop: LoopConfig = recipe.loop
        self.recipe = recipe_to_dict(recipe)
        self.data_fingerprint = manifest.fingerprint()
        self.resume_command = f"videomae {FOLDERS[type(recipe)]} --resume --out {shlex.quote(str(out))}"
        self._ranks, self._facts = ranks, {**facts, "processes": ranks.world_size}
        check_tracker(self.loop.tracker)
        self._recipe_text = recipe_to_yaml(recipe)

        def opened() -> tuple[RunFolder, list[Change] | None]:
            folder = RunFolder.open(out, overwrite=overwrite, resume=resume)
            if resume:
                return folder, allowed_changes(recipe, folder.path)
            # The recipe first: a run that is killed after it can be resumed, one killed before it started again.
            folder.write_text(RECIPE_FILE, self._recipe_text)
            record_start(folder.path, num_processes=ranks.world_size)
            self._record_environment(folder.path, 0)
            return folder, None

        self.folder, self._changes = ranks.first(opened)
        self.metrics = MetricsLog(self.folder.metrics) if ranks.is_first else None
        self.bad = BadVideoCount(self.loop.max_bad_fraction, num_videos=len(manifest.rows))
        self.skipped = SkippedSteps(self.loop.max_skipped_steps)
        self.step = 0
        """Steps done."""
        self._names = [str(row.source) for row in manifest.rows]
        self._pending = PendingSteps()
        self.recent: deque[dict[str, Any]] = deque(maxlen=MAX_RECENT)
        """Records of the newest steps whose losses were read, as in the metrics."""
        self._tracker: RunTracker | None = None
        self._saved_step: int | None = None
        self._sharded: ShardedCheckpoints | None = None
        self._speed = MeanSpeed()
        self._can_save = True  # False while the weights are being updated, and after a save that failed

    @property
    def model_folder(self) -> Path:
        """Where the trained model is written after the last step."""
        return self.folder.path / RUN_FOLDER

    def is_finished(self, total_steps: int) -> bool:
        """Return whether the model folder, whose record is written last, is the result of all steps on this data.

        A run whose evaluation is to be done otherwise than before is not finished.
        """
        return self._ranks.first(lambda: self._is_finished(total_steps))

    def _is_finished(self, total_steps: int) -> bool:
        training = load_record(self.model_folder).training
        if training is None or any(change.effect == EVALUATION for change in self._changes or ()):
            return False
        finished = (training.steps, training.data_fingerprint) == (total_steps, self.data_fingerprint)
        if finished and self._changes:
            changed = ", ".join(change.name for change in self._changes)
            tell(f"the run is finished: other values of {changed} change nothing")
        return finished

    def restore(self, spread: SpreadModel, optimizer: RunOptimizer, average: WeightAverage | None = None) -> int:
        """Load the newest checkpoint into the model and the optimizer, if there is one.

        From here on they are what `save` saves.

        Returns:
            The number of steps done.

        Raises:
            CheckpointError: If it belongs to other data or another model, or its weights are not finite.
        """
        self._spread, self._optimizer, self._average = spread, optimizer, average
        if spread.is_sharded:
            folder, keep = self.folder.checkpoints, self.loop.keep_checkpoints
            self._sharded = ShardedCheckpoints(folder, self._ranks, keep=keep)
        path = self._ranks.first(lambda: latest_checkpoint(self.folder.checkpoints))
        if path is not None:
            state = self._load(path)
            name = not_finite(spread, self._ranks)
            if name is not None:
                raise CheckpointError(
                    f"{path} has weights that are not finite, first {name}: delete it to resume earlier"
                )
            self.bad.load_state(state["bad"])
            if "skipped" in state:  # checkpoints of version 0.1.0 have no count
                self.skipped.load_state(state["skipped"])
            self.step = self._saved_step = int(state["step"])
        self._ranks.first(self._go_on)
        return self.step

    def _load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint into the model and the optimizer; returns the rest of it."""
        model, optimizer = self._spread.model, self._optimizer
        state = folder_state(path) if path.is_dir() else load_checkpoint(path)
        if state["data_fingerprint"] != self.data_fingerprint:
            raise CheckpointError(
                f"{path} was trained on other data than data.train holds now: restore the videos, or start a new "
                "run in another folder"
            )
        if path.is_dir():
            return load_sharded(path, model, optimizer, ema=self._averages)
        try:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if self._average is not None:
                self._average.load(state["ema"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} does not fit this recipe's model: {reason}") from None
        return state

    def _go_on(self) -> None:
        """Bring the files of the run to the step that it goes on from."""
        assert self.metrics is not None
        self._tracker = RunTracker(self.loop.tracker, self.folder.path, self.recipe, self.step)
        # An evaluation follows the last step; a run that is not finished does it again.
        self.metrics.truncate_after(self.step, drop=("evaluation",))
        if self.step and self.metrics.path.exists():
            self.recent.extend(MetricsLog.read(self.metrics.path))
        if self._changes is not None:  # only now is it known that the run can go on, and from where
            print(f"resuming {self.folder.path} after step {self.step}")
            for change in self._changes:
                print(f"  {change.line()}")
            processes = self._ranks.world_size
            record_resume(self.folder.path, step=self.step, changes=self._changes, num_processes=processes)
            self._record_environment(self.folder.path, self.step)
            self.folder.write_text(RECIPE_FILE, self._recipe_text)

    def _record_environment(self, folder: Path, step: int) -> None:
        record_environment(folder, {**self._facts, **environment(self.loop.device)}, step=step)

    # ---- every step ------------------------------------------------------------------------------------------

    @contextmanager
    def updating(self, step: int) -> Iterator[None]:
        """Mark the update of the weights: in the body they are neither those before `step` nor those after it."""
        self._can_save = False
        yield
        self.step, self._can_save = step, True

    def log_step(
        self,
        whole: WholeStep,
        plan: StepPlan,
        *,
        loss: Tensor | None,
        grad_norm: Tensor | None,
        noted: Mapping[str, float] | None = None,
    ) -> float | None:
        """Count the step that is done and keep its numbers; every `log_steps` read and write them.

        Args:
            whole: What all processes have in this step.
            plan: For epoch and learning rate.
            loss: 0-d; None where no video of the batch could be read.
            grad_norm: 0-d; None likewise.
            noted: Further numbers for the record of the step.

        Returns:
            The last loss, if losses were read.

        Raises:
            RunError: If too many videos are bad, too many steps were skipped, or the metrics cannot be written.
        """
        record = {
            "step": self.step,
            "epoch": round(plan.epoch(self.step), 4),
            "lr": plan.lr(self.step),
            "clips": whole.num_readable,
            **(noted or {}),
        }
        videos = [self._names[index] for index in whole.indices]
        self._pending.add(record, loss=loss, grad_norm=grad_norm, videos=videos)
        self._speed.add(whole.num_readable)
        read = 0 if whole.repeat else plan.batch_size  # the clips after the first are of the same decoding
        self.bad.add(read, {one.path: one.reason for one in whole.bad})
        return self.flush() if len(self._pending) >= self.loop.log_steps else None

    def flush(self) -> float | None:
        """Write the kept numbers; returns the last loss, or None where there was none.

        Raises:
            RunError: If too many steps were skipped; everything is written first.
        """
        records = self._pending.read()
        try:
            for record in records:
                self.append(record)
        except RunError:
            self._can_save = False  # a checkpoint of a later step than the metrics would leave a gap in them
            raise
        self.recent.extend(records)
        for record in records:
            if "skipped" in record:
                tell(f"step {record['step']} is skipped: its loss or gradient is not finite")
        self.skipped.add(records)
        losses = [record["loss"] for record in records if "loss" in record]
        return losses[-1] if losses else None

    def append(self, record: dict[str, Any]) -> None:
        """Add a record to the metrics, in the first process.

        Raises:
            RunError: If it cannot be written.
        """
        if self.metrics is not None:
            self.metrics.append(record)
            if self._tracker is not None:
                self._tracker.log(record)

    # ---- checkpoints -----------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write metrics and a checkpoint.

        Raises:
            RunError: If weights are not finite, or the metrics cannot be written; no checkpoint is written then.
            CheckpointError: If the checkpoint cannot be written.
        """
        self.flush()
        self._write_checkpoint(self._ranks)

    @contextmanager
    def save_on_stop(self) -> Iterator[None]:
        """Save the last finished step where a stop or an error ends the block, and tell how to resume.

        A second signal and an error in the middle of an update end it without saving.
        """
        try:
            yield
        except (StopRequested, Exception) as error:
            saved = self._save_after(error)
            place = f"saved at step {saved}" if saved else "nothing was saved"
            tell(f"{place}; resume with: {self.resume_command}")
            self._record_end("stopped" if isinstance(error, StopRequested) else "failed", error)
            raise

    def _save_after(self, error: BaseException) -> int:
        """Write what there is to write, whatever the error has left usable; returns the newest checkpoint's step."""
        try:
            with contextlib.suppress(RunError):  # too many skipped steps: known already, or said after resuming
                self.flush()
            if self._can_save and self.step != (self._saved_step or 0):
                # After a stop all processes are here. After an error this one may be alone, and a checkpoint that
                # one process has all of is the first one's to write.
                self._write_checkpoint(self._ranks if isinstance(error, StopRequested) else None)
            if isinstance(error, StopRequested):
                self.finish_saving()
        except Exception as failure:  # such as a device that failed; the first error is the one to report
            tell(f"step {self.step} cannot be saved: {' '.join(str(failure).split())}")
        return self._saved_step or 0

    def _write_checkpoint(self, ranks: Ranks | None) -> None:
        """Write a checkpoint; without ranks this process may be the only one that does."""
        if ranks is None and (self._sharded is not None or not self._ranks.is_first):
            return
        model = self._spread.model
        plain = {"bad": self.bad.state(), "skipped": self.skipped.state(), "data_fingerprint": self.data_fingerprint}
        try:
            name = not_finite(self._spread, ranks or Ranks())
            if name is not None:
                raise RunError(
                    f"the weights after step {self.step} are not finite, first {name}, and are not saved: resume "
                    "with a lower optim.base_lr"
                )
            if self._sharded is not None:
                self._sharded.save(model, self._optimizer, step=self.step, plain=plain, ema=self._averages)
            else:
                (ranks or Ranks()).first(lambda: self._write_file(plain))
        except VideoMAEError:
            self._can_save = False
            raise
        self._saved_step = self.step

    def _write_file(self, plain: dict[str, Any]) -> None:
        state = {"model": self._spread.model.state_dict(), "optimizer": self._optimizer.state_dict(), **plain}
        if self._average is not None:
            state["ema"] = self._average.values
        save_checkpoint(self.folder.checkpoints, step=self.step, state=state, keep=self.loop.keep_checkpoints)

    @property
    def _averages(self) -> dict[str, Tensor] | None:
        return None if self._average is None else self._average.values

    def close(self) -> None:
        """End what goes on beside the run, which is finished."""
        if self._tracker is not None:
            self._tracker.close()
        self._record_end("finished")

    def _record_end(self, event: str, error: BaseException | None = None) -> None:
        """Add to the history how this process has ended the run, and how fast it was."""
        with contextlib.suppress(RunError):  # a full disk, say, which has ended the run or comes after all else
            if self._ranks.is_first:
                speed = self._speed.clips_per_second
                record_end(self.folder.path, event, step=self.step, clips_per_second=speed, error=error)

    def finish_saving(self) -> None:
        """Wait for a checkpoint that is still being written.

        Raises:
            CheckpointError: If it cannot be written.
        """
        if self._sharded is not None:
            self._sharded.finish()

    # ---- the result ------------------------------------------------------------------------------------------

    def summary(self) -> list[str]:
        """Return lines about bad videos and skipped steps; empty where there were none."""
        return [*self.bad.summary(), *self.skipped.summary()]

    def record(self, **results: Any) -> dict[str, Any]:
        """Return what a model folder tells about its training."""
        return {
            "videomae_version": __version__,
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "data_fingerprint": self.data_fingerprint,
            "recipe": self.recipe,
            "videos_left_out": dict(sorted(self.bad.reasons.items())),
            "skipped_steps": self.skipped.total,
            **results,
        }
