"""The evaluations of a fine-tuning run: during training, which keeps the best weights, and after the last step.

The best weights are a model folder of their own, `best/`, that can be used while the run goes on. It is written
before the measurement is in the metrics, and that before the next checkpoint: a run that is killed in between
measures the same step again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from videomae.engine.compiled import uncompiled
from videomae.engine.distributed import Ranks
from videomae.engine.interrupt import Interrupt
from videomae.engine.parallel import SpreadModel
from videomae.engine.precision import pick_device
from videomae.engine.progress import TrainingProgress
from videomae.engine.runlog import MetricsLog
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.label_metrics import best_thresholds
from videomae.evaluation.results import EVALUATION_FILE, EvaluationResult, load_evaluation, metrics_of
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.recipes.schema import FinetuneRecipe
from videomae.sharing.record import EvaluationSummary, ModelRecord, TrainingRecord, load_record, save_record
from videomae.train.adapting import Units, merged
from videomae.train.labelled import Labelled
from videomae.train.session import Session
from videomae.train.spreading import whole_model
from videomae.train.step import StepPlan

BEST_FOLDER = "best"
LAST_MODEL_FOLDER = "model-last"
LAST_EVALUATION_FILE = "evaluation-last.json"
VALIDATION, STEP, SCORE = "validation", "best_step", "best_score"


@dataclass(frozen=True)
class Outcome:
    """The evaluations after the last step."""

    chosen: EvaluationResult
    """Of the weights in the model folder: the best ones where there was validation during training, else the last."""
    last: EvaluationResult | None
    """Of the last weights; None where they are the chosen ones."""


def load_last_evaluation(folder: Path) -> EvaluationResult | None:
    """Return the evaluation of the last weights of a finished run; None where they are those of its model folder."""
    path = folder / LAST_EVALUATION_FILE
    return load_evaluation(path) if path.is_file() else None


class Measuring:
    """Evaluates a classifier in training.

    Args:
        recipe: What is evaluated when, and how.
        session: The run on disk, restored.
        videos: The run's.
        plan: Its steps.
        processor: Of the model folders.
        units: Of a regression's values.
        spread: What is trained.
        ranks: The processes; all call every method, and the first evaluates and writes while the others wait.
        model_class: Of the classifier.
    """

    def __init__(
        self,
        recipe: FinetuneRecipe,
        session: Session,
        videos: Labelled,
        plan: StepPlan,
        processor: VideoMAEImageProcessor,
        units: Units,
        spread: SpreadModel,
        ranks: Ranks,
        model_class: type[VideoMAEForVideoClassification],
    ) -> None:
        self.recipe = recipe
        self.session = session
        self.videos = videos
        self.plan = plan
        self.processor = processor
        self.units = units
        self.spread, self.ranks, self.model_class = spread, ranks, model_class
        self.best_folder = session.folder.path / BEST_FOLDER
        config = recipe.validation
        steps = config.every_steps
        if config.every_epochs is not None:
            steps = max(round(config.every_epochs * plan.steps_per_epoch), 1)
        self.every = steps
        """Steps from one validation to the next; None without."""
        self.best = ranks.first(self._best_so_far) if steps else None
        """Score and step of the best weights; None before the first validation."""
        self._measured = ranks.first(self._measured_steps) if steps else set()

    def is_due(self, step: int) -> bool:
        """Tell whether a step that is done is to be validated and has not been."""
        due = self.every is not None and step > 0 and (step % self.every == 0 or step == self.plan.total)
        return due and step not in self._measured

    def validate(self, step: int, say: Callable[[str], None], interrupt: Interrupt) -> None:
        """Evaluate on the validation videos, keep the weights if they are the best, and report at once.

        Args:
            step: Steps done.
            say: Prints a line.
            interrupt: Where a stop is asked for; it ends the evaluation.

        Raises:
            RunError: If no validation video can be read.
            WeightsError: If the best weights cannot be written.
        """
        model = whole_model(self.spread, self.model_class, self.ranks)
        self.session.flush()  # the records of the steps before this one come first

        def validated() -> tuple[str, tuple[float, int]]:
            with interrupt.discardable(), uncompiled():
                return self._validated(model, step)

        with interrupt.alone():
            line, self.best = self.ranks.first(validated)
        self._measured.add(step)
        say(line)

    def _validated(self, model: VideoMAEForVideoClassification, step: int) -> tuple[str, tuple[float, int]]:
        """Return a line for people, and the best score with its step."""
        recipe = self.recipe
        config = replace(recipe.evaluation, views=recipe.validation.views)
        with uncompiled(), self.units.natural(model):  # on other shapes, now and then: not worth a compilation
            result = evaluate(model, self.videos.val, processor=self.processor, clip=recipe.clip, config=config)
            score = result.metrics.score
            is_best = self.best is None or score > self.best[0]
            if is_best:
                self._save(self.best_folder, model, result, steps=step, results={STEP: step, SCORE: score})
        record = {"step": step, VALIDATION: result.metrics_dict(), "score": score, "is_best": is_best}
        self.session.append(record)
        best = (score, step) if is_best or self.best is None else self.best
        note = "the best so far" if is_best else f"the best, {best[0]:.4g}, was at step {best[1]}"
        return f"validation after step {step}: {result.metrics.lines()[0]}; {note}", best

    def finish(self, interrupt: Interrupt) -> Outcome:
        """Evaluate from all views, the best and the last weights, and write the model folders."""
        model = whole_model(self.spread, self.model_class, self.ranks)

        def finished() -> Outcome:
            with interrupt.discardable(), uncompiled():
                return self._finished(model)

        return self.ranks.first(finished)

    def _finished(self, model: VideoMAEForVideoClassification) -> Outcome:
        folder, path = self.session.model_folder, self.session.folder.path
        last: EvaluationResult | None = None
        with self.units.natural(model):
            last_result, thresholds = self._final(model, "evaluating")
            if self.best is None or self.best[1] == self.plan.total:
                self._finish_with(last_result, model, folder, thresholds, step=self.plan.total)
                return Outcome(last_result, None)
            last = last_result
            last.save(path / LAST_EVALUATION_FILE)
            self._save(path / LAST_MODEL_FOLDER, model, last, steps=self.plan.total, thresholds=thresholds)
        best = self.model_class.from_pretrained(self.best_folder).to(pick_device(self.recipe.loop.device))
        chosen, thresholds = self._final(best, "evaluating the best weights")
        self._finish_with(chosen, best, folder, thresholds, step=self.best[1])
        return Outcome(chosen, last)

    def _final(
        self, model: VideoMAEForVideoClassification, title: str
    ) -> tuple[EvaluationResult, dict[str, float] | None]:
        """Evaluate on the test videos, or where there are none on the validation videos.

        Thresholds of several labels are chosen on validation videos, and on none of a split called test.
        """
        videos = self.videos
        several = videos.problem == "multi_label_classification"
        thresholds = None
        result = None
        if videos.test is None or several:
            result = self._evaluated(model, title, test=False)
            if several and not any(row.split == "test" for row in videos.val.rows):
                scores, targets = result.arrays()
                levels = best_thresholds(scores, targets)
                thresholds = dict(zip(result.classes, levels, strict=True))
                result = replace(result, thresholds=levels, metrics=metrics_of(result.rows, result.problem, levels))
            elif several:
                print("thresholds stay at 0.5: the validation videos are of the split test; give others in data.val")
        if videos.test is not None:
            result = self._evaluated(model, title, test=True, thresholds=thresholds)
        assert result is not None
        return result, thresholds

    def _evaluated(
        self,
        model: VideoMAEForVideoClassification,
        title: str,
        *,
        test: bool,
        thresholds: dict[str, float] | None = None,
    ) -> EvaluationResult:
        manifest = self.videos.val
        if test:
            assert self.videos.test is not None
            manifest = self.videos.test
        with uncompiled(), TrainingProgress(title, total_steps=len(manifest.rows)) as progress:
            return evaluate(
                model,
                manifest,
                processor=self.processor,
                clip=self.recipe.clip,
                config=self.recipe.evaluation,
                thresholds=thresholds,
                on_progress=lambda done, _: progress.update(done, num_clips=1),
            )

    def _finish_with(
        self,
        result: EvaluationResult,
        model: VideoMAEForVideoClassification,
        folder: Path,
        thresholds: dict[str, float] | None,
        *,
        step: int,
    ) -> None:
        result.save(self.session.folder.path / EVALUATION_FILE)
        self.session.append({"step": self.plan.total, "evaluation": result.metrics_dict()})
        extra = {} if self.best is None else {STEP: step, SCORE: self.best[0]}
        self._save(folder, model, result, steps=self.plan.total, thresholds=thresholds, results=extra)

    def _save(
        self,
        folder: Path,
        model: VideoMAEForVideoClassification,
        result: EvaluationResult,
        *,
        steps: int,
        thresholds: dict[str, float] | None = None,
        results: Mapping[str, float] | None = None,
    ) -> None:
        """Write a model folder; its record, which says that it is whole, last."""
        merged(model).save_pretrained(folder)
        self.processor.save_pretrained(folder)
        training = TrainingRecord.from_dict(self.session.record(stage="fine-tuning", steps=steps, **(results or {})))
        summary = EvaluationSummary.from_dict(result.metrics_dict())
        record = ModelRecord(sampling=self.recipe.clip, training=training, evaluation=summary, thresholds=thresholds)
        save_record(folder, record)

    def _best_so_far(self) -> tuple[float, int] | None:
        """Return score and step of the weights in `best/`, unless they are of steps that are still to be done."""
        training = load_record(self.best_folder).training if self.best_folder.is_dir() else None
        if training is None or training.extra.get(STEP, self.session.step + 1) > self.session.step:
            return None
        return float(training.extra[SCORE]), int(training.extra[STEP])

    def _measured_steps(self) -> set[int]:
        path = self.session.folder.metrics
        records = MetricsLog.read(path) if path.exists() else []
        return {int(record["step"]) for record in records if VALIDATION in record}
