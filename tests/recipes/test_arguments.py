from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.recipes.arguments import chosen_recipe, value_of, with_recipe_file, with_videos
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe


@pytest.mark.parametrize(
    "arguments",
    [
        ["videos", "--out", "run", "--resume", "--loop.workers", "-1", "--config=tiny"],
        ["--out", "run", "videos", "--resume", "--loop.workers", "-1", "--config=tiny"],
        ["--out", "run", "--resume", "--loop.workers", "-1", "--config=tiny", "videos"],
    ],
)
def test_the_folder_may_stand_anywhere_and_values_of_options_are_not_taken_for_it(arguments: list[str]) -> None:
    expected = ["--data.train", "videos", "--out", "run", "--resume", "--loop.workers", "-1", "--config=tiny"]
    assert with_videos(arguments) == expected


def test_arguments_without_a_folder_stay_as_they_are() -> None:
    arguments = ["--data.train", "videos", "--overwrite", "--out", "run"]
    assert with_videos(arguments) == arguments
    assert with_videos(["--out"]) == ["--out"]


def test_two_folders_and_a_folder_given_twice_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="a and b are given as videos, but one folder is taken: put the videos into"
    ):
        with_videos(["a", "--overwrite", "b"])
    with pytest.raises(ConfigError, match=r"given twice, as a and as --data\.train b: leave one out"):
        with_videos(["a", "--data.train=b"])


def test_the_last_value_of_an_option_counts() -> None:
    assert value_of("--out", ["--out", "a", "--out=b"]) == "b"
    assert value_of("--out", ["--output", "a", "--out"]) is None


def test_a_recipe_name_becomes_its_file() -> None:
    one, other = (
        with_recipe_file(PretrainRecipe, ["--config", "tiny"]),
        with_recipe_file(PretrainRecipe, ["--config=tiny"]),
    )
    assert one[1].endswith("recipes/pretrain/tiny.yaml")
    assert other == [f"--config={one[1]}"]


def test_a_recipe_is_chosen_by_the_number_of_videos_and_the_device(
    labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from videomae.recipes import choice

    rows = (choice.Choice("demo", ("cuda",), 6, "six"), choice.Choice("tiny", ("cuda", "cpu"), 0, "few"))
    monkeypatch.setattr(choice, "CHOICES", rows)
    data = ["--data.train", str(labelled_folder)]
    for kind in (PretrainRecipe, FinetuneRecipe):
        before, lines = chosen_recipe(kind, [*data, "--loop.device", "cpu"])
        assert before[1].endswith("tiny.yaml")
        assert "tiny, chosen for 6 videos on cpu (few)" in lines[0]
        monkeypatch.setattr("videomae.engine.precision.pick_device", lambda name: torch.device("cuda"))
        assert chosen_recipe(kind, data)[0][1].endswith("demo.yaml")
        monkeypatch.undo()
        monkeypatch.setattr(choice, "CHOICES", rows)


def test_a_model_in_part_is_refused_where_the_recipe_would_be_chosen(labelled_folder: Path) -> None:
    for option in ("--model.preset", "--model"):
        with pytest.raises(
            ConfigError, match=rf"{option} is given without --config: the recipe that would be chosen"
        ):
            chosen_recipe(PretrainRecipe, ["--data.train", str(labelled_folder), option, "large"])


def test_videos_that_fine_tuning_cannot_use_are_refused_before_anything_is_chosen(
    labelled_folder: Path, tmp_path: Path
) -> None:
    from videomae.errors import ManifestError

    shutil.copytree(labelled_folder / "left", tmp_path / "one" / "left")
    with pytest.raises(ManifestError, match="class"):
        chosen_recipe(FinetuneRecipe, ["--data.train", str(tmp_path / "one")])
