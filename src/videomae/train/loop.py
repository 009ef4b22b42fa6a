"""The steps of either kind of training run: from a batch to updated weights, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import shlex
from contextlib import AbstractContextManager
from pathlib import Path

from torch.utils.data import DataLoader

from videomae.collection.prepare_state import FOLDER as PREPARED
from videomae.data.loader import Batch, in_steps
from videomae.data.manifest import procedural_seed
from videomae.engine.average import WeightAverage
from videomae.engine.compiled import uncompiled
from videomae.engine.data_wait import DataWait
from videomae.engine.interrupt import Interrupt
from videomae.engine.optim import RunOptimizer, clip_and_norm
from videomae.engine.parallel import SpreadModel
from videomae.engine.progress import TrainingProgress
from videomae.engine.workers import running_workers
from videomae.monitor.learning import LearningMonitor
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.train.cost import RunCost
from videomae.train.gradients import Gradients
from videomae.train.measuring import Measuring
from videomae.train.session import Session
from videomae.train.step import StepPlan, update_weights


def train_steps(
    name: str,
    recipe: PretrainRecipe | FinetuneRecipe,
    plan: StepPlan,
    *,
    spread: SpreadModel,
    optimizer: RunOptimizer,
    gradients: Gradients,
    loader: DataLoader[list[Batch]],
    session: Session,
    cost: RunCost,
    interrupt: Interrupt,
    average: WeightAverage | None = None,
    monitor: LearningMonitor | None = None,
    measuring: Measuring | None = None,
) -> None:
    """Train from the step that the session is at to the last one.

    Args:
        name: A word for the progress bar.
        recipe: Of the run.
        plan: Its steps.
        spread: What is trained.
        optimizer: Of its parameters.
        gradients: Computes them.
        loader: Starts at the same step.
        session: Restored.
        cost: Of the run.
        interrupt: Where a stop is asked for.
        average: Of the weights; it is the model's after the last step.
        monitor: Measures whether pre-training learns; in the first process alone.
        measuring: Validates fine-tuning; in all processes.

    Raises:
        VideoMAEError: If too many videos are bad, training diverges or a file cannot be written.
        StopRequested: After a signal. The last finished step is saved first.
    """
    loop, start = recipe.loop, session.step
    parameters = list(spread.model.parameters())
    duration, work = cost.duration_estimate(), cost.step_work()
    wait = DataWait(parameters[0].device, workers=loop.workers, command=prepare_command(recipe.data.train))
    with (
        TrainingProgress(name, total_steps=plan.total, start_step=start, work=work) as progress,
        running_workers(loader) as groups,
        session.save_on_stop(),
    ):
        batches = in_steps(groups, start_step=start, repeats=recipe.augment.repeats)
        with uncompiled():  # what is measured now and then, on other shapes, is not worth a compilation
            for line in monitor.start(start, session.recent) if monitor is not None else ():
                progress.say(line)
        if measuring is not None and measuring.is_due(start):  # a stop came between the step and its validation
            with averaged(average):
                measuring.validate(start, progress.say, interrupt)
        for step in range(start + 1, plan.total + 1):
            loss = norm = None
            with interrupt.discardable():
                with wait.batch():
                    batch = next(batches)
                whole = gradients.agree(batch, interrupt)
                if whole.num_readable:
                    loss = gradients.compute(batch, whole, step)
                    if monitor is not None:
                        monitor.before_update(step, batch)
                    norm = clip_and_norm(parameters, recipe.optim.clip_grad)
            with session.updating(step):
                if loss is not None and norm is not None:
                    update_weights(optimizer, lr=plan.lr(step), loss=loss, grad_norm=norm)
                    if average is not None:
                        average.update()
            noted = {**wait.noted(), **progress.noted()}
            read = session.log_step(whole, plan, loss=loss, grad_norm=norm, noted=noted)
            wait.done()
            progress.data_wait = wait.share
            progress.update(step, num_clips=whole.num_readable, loss=read, learning_rate=plan.lr(step))
            for line in (*duration.after(step, synchronized=read is not None), *wait.advice(), *gradients.said()):
                progress.say(line)
            if monitor is not None and monitor.is_due(step):
                session.flush()
                with uncompiled():
                    for line in monitor.measure(step, session.recent):
                        progress.say(line)
            if measuring is not None and measuring.is_due(step):
                with averaged(average):
                    measuring.validate(step, progress.say, interrupt)
            if step % loop.checkpoint_steps == 0 or step == plan.total:
                session.save()
        session.finish_saving()
        if average is not None:
            average.install()


def averaged(average: WeightAverage | None) -> AbstractContextManager[None]:
    """Put the average of the weights in their place, where there is one: it is what the run will give."""
    return contextlib.nullcontext() if average is None else average.installed()


def prepare_command(videos: Path) -> str | None:
    """Return the command that makes the videos of a run quicker to read; None where they are not read, or are so."""
    if procedural_seed(videos) is not None:
        return None
    folder = videos if videos.is_dir() else videos.parent
    if (folder / PREPARED).is_dir():
        return None
    return f"videomae data prepare {shlex.quote(str(videos))} {shlex.quote(f'{videos.stem or videos.name}-prepared')}"
