"""The subcommands that train: `videomae pretrain` and `videomae finetune`, see `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomae.command_options import recipe_and_options
from videomae.engine.launched import silence_others


def pretrain(arguments: list[str]) -> int:
    """Pre-train on a folder of unlabelled videos."""
    from videomae.recipes.schema import PretrainRecipe

    is_other = silence_others()
    recipe, options = recipe_and_options("pretrain", PretrainRecipe, arguments, about=pretrain.__doc__)

    if _told_dry_run(recipe, options):
        return 0

    from videomae.train.pretrain import pretrain as train

    folder = train(
        recipe,
        out=options.out,
        overwrite=options.overwrite,
        resume=options.resume,
        recipe_name=options.recipe_name,
    )
    print(f"model: {options.out / folder.name}")  # as it was named, like the report
    if not is_other:
        _told_page(options.out)
    return 0


def finetune(arguments: list[str]) -> int:
    """Fine-tune a classifier on labelled videos, from --init, else the shipped model; --init null: random weights."""
    from videomae.recipes.schema import FinetuneRecipe

    is_other = silence_others()
    recipe, options = recipe_and_options("finetune", FinetuneRecipe, arguments, about=finetune.__doc__)

    if _told_dry_run(recipe, options):
        return 0

    from videomae.train.finetune import finetune as train

    result = train(
        recipe,
        out=options.out,
        overwrite=options.overwrite,
        resume=options.resume,
        recipe_name=options.recipe_name,
    )
    for line in result.evaluation.summary():
        print(line)
    if recipe.data.folds is not None and recipe.data.fold is None:
        from videomae.report.evaluation_page import write_evaluation_page

        page = write_evaluation_page(options.out, result.evaluation, model=str(options.out))
        print(f"models: {options.out}/fold-*/model\nreport: {page}")
        return 0
    print(f"model: {options.out / result.model_folder.name}")
    if not is_other:
        _told_page(options.out)
    return 0


def _told_dry_run(recipe: Any, options: Any) -> bool:
    """Say what a run would take, where that is all that was asked for."""
    if options.dry_run:
        from videomae.train.dry_run import dry_run

        for line in dry_run(recipe, options.plan):
            print(line)
    return bool(options.dry_run)


def _told_page(run: Path) -> None:
    """Write the page of a run that is finished, and say where it is."""
    from videomae.report.run_page import write_run_page

    print(f"report: {write_run_page(run)}")
