"""Where the numbers of a run are shown beside its own files: TensorBoard's, or a service's, by name.

Nothing of a run depends on a tracker: `metrics.jsonl` holds every number, and a tracker that fails while the run goes
on is dropped with a warning.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from videomae.engine.configs import TrackerName as TrackerName
from videomae.errors import ConfigError

PROJECT = "videomae"
FOLDER = "tensorboard"  # in the run folder


class Tracker(Protocol):
    """What a run tells its numbers."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step, by name."""

    def close(self) -> None:
        """Write what is still in memory."""


class TensorBoard:
    """Event files in the run folder, read by `tensorboard --logdir`."""

    def __init__(self, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        import tensorboard  # noqa: F401  # whose files torch's writer writes
        from torch.utils.tensorboard import SummaryWriter

        # What was written of later steps, which the run does again, is hidden.
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step, by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


class Service:
    """wandb, or trackio, which has its functions; where the numbers go is the service's own setting."""

    module: str

    def __init__(self, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        self._run = importlib.import_module(self.module).init(
            project=PROJECT, name=run.name, config=dict(recipe), resume="allow", **self.options(run)
        )

    def options(self, run: Path) -> dict[str, Any]:
        """Return what this service alone is told."""
        return {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step, by name."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._run.finish()


class Wandb(Service):
    """Weights & Biases; `WANDB_MODE=offline` keeps its files in the run folder."""

    module = "wandb"

    def options(self, run: Path) -> dict[str, Any]:
        """Return where its files are, and the run that is resumed."""
        return {"dir": str(run), "id": run.name}


class Trackio(Service):
    """trackio, whose files are in its own cache."""

    module = "trackio"


TRACKERS: dict[str, tuple[str, Callable[[Path, Mapping[str, Any], int], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", Wandb),
    "trackio": ("trackio", Trackio),
}
"""The module that a tracker needs, and the tracker."""


def check_tracker(name: TrackerName) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        ConfigError: With the command that installs it.
    """
    if name in TRACKERS and importlib.util.find_spec(TRACKERS[name][0]) is None:
        raise ConfigError(
            f"loop.tracker is {name!r}, which is not installed: pip install {TRACKERS[name][0]}, or use auto or none"
        )


class RunTracker:
    """The tracker of a run, or none.

    Args:
        name: auto is tensorboard where it is installed, else none.
        run: The run folder.
        recipe: Plain values.
        step: Steps done.
    """

    def __init__(self, name: TrackerName, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        if name == "auto":
            name = "tensorboard" if importlib.util.find_spec("tensorboard") is not None else "none"
        self._tracker: Tracker | None = None
        if name != "none":
            self._try(lambda: setattr(self, "_tracker", TRACKERS[name][1](run, recipe, step)))

    def log(self, record: Mapping[str, Any]) -> None:
        """Take a record of the metrics; its numbers are told, those inside of parts by both names."""
        tracker, values = self._tracker, dict(_numbers(record))
        if tracker is not None and "step" in record:
            self._try(lambda: tracker.log(values, int(record["step"])))

    def close(self) -> None:
        """Write what is still in memory; nothing is taken after it."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            self._try(tracker.close)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # of a service, its connection or its disk: none of it may end a run
            self._tracker = None
            warnings.warn(f"the tracker has failed and is left out from here on: {error}", stacklevel=3)


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}{name}", float(value)
