"""Which packaged recipe is taken where none is named: a table of devices and numbers of videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from videomae.recipes.schema import FOLDERS, recipe_names
from videomae.wording import counted


@dataclass(frozen=True)
class Choice:
    """A recipe, and when it is taken."""

    recipe: str
    """Its name; both kinds of run have one of this name."""
    devices: tuple[str, ...]
    """Types of device that it is for."""
    min_videos: int
    """Fewest videos that it is for."""
    reason: str
    """Why it is taken, for people."""


# The first row that fits is taken. Kinetics-400 has 240,000 training videos, Something-Something V2 169,000; UCF101
# and HMDB51 have some thousands.
CHOICES = (
    Choice("one-gpu", ("cuda",), 5_000, "a GPU and thousands of videos train the small model"),
    Choice("small-data", ("cuda",), 0, "a GPU and up to a few thousand videos"),
    Choice(
        "laptop",
        ("mps", "cpu"),
        0,
        "continues from the encoder that ships with the package, about ten minutes on two cores",
    ),
)


def choose_recipe(device: str, *, num_videos: int) -> Choice:
    """Return the recipe for a type of device and a number of videos."""
    return next(one for one in CHOICES if device in one.devices and num_videos >= one.min_videos)


def choice_line(kind: type[Any], choice: Choice, device: str, *, num_videos: int) -> str:
    """Tell which recipe was chosen, why, and how to take another."""
    others = ", ".join(name for name in recipe_names(kind) if name != choice.recipe)
    return (
        f"recipe: {choice.recipe}, chosen for {counted(num_videos, 'video')} on {device} ({choice.reason}); "
        f"another for videomae {FOLDERS[kind]}: --config {others}, or a YAML file"
    )
