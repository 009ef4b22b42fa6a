"""What the training loops share: their settings, counts of bad videos and of skipped steps, and losses read late.

A video is a name and a reason here, so any loop can use this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from videomae.engine.configs import LoopConfig as LoopConfig
from videomae.errors import RunError
from videomae.wording import counted

MIN_VIDEOS_TO_JUDGE = 40  # below this, a fraction of bad videos says nothing yet
MAX_NAMES = 8  # videos named in a message; metrics.jsonl names all


class BadVideoCount:
    """Counts videos that could not be read, remembers their names, and stops a run that has too many.

    Args:
        max_fraction: Largest fraction of bad videos among those read so far, each counted once however often it is
            read.
        num_videos: Size of the data set.
    """

    def __init__(self, max_fraction: float, *, num_videos: int) -> None:
        self.max_fraction = max_fraction
        self.num_videos = num_videos
        self.num_seen = 0
        self.reasons: dict[str, str] = {}
        self._num_bad = 0

    def add(self, num_samples: int, bad: Mapping[str, str]) -> None:
        """Count a batch.

        Args:
            num_samples: Samples asked for, bad ones included.
            bad: Reason by path.

        Raises:
            RunError: If more than `max_fraction` of at least 40 videos are bad, or every video of the data set was
                read once and all were bad. The batch is counted all the same.
        """
        self.num_seen += num_samples
        self._num_bad += len(bad)
        self.reasons.update(bad)
        num_videos = min(self.num_seen, self.num_videos)  # different ones: an epoch reads each once
        fraction = len(self.reasons) / max(num_videos, 1)
        # The samples, too: where reading fails now and then, every video fails once in a long run.
        over = min(fraction, self._num_bad / max(self.num_seen, 1)) > self.max_fraction
        too_many = num_videos >= MIN_VIDEOS_TO_JUDGE and over
        none_good = self._num_bad == self.num_seen and len(self.reasons) >= self.num_videos
        if too_many or none_good:
            path, reason = next(iter(self.reasons.items()))
            rule = f"more than loop.max_bad_fraction {self.max_fraction:g} allows" if too_many else "none is left"
            remedy = ", or raise loop.max_bad_fraction" if fraction < 1 else ""
            raise RunError(
                f"{len(self.reasons)} of {num_videos} videos ({fraction:.0%}) cannot be read, {rule}; the first is "
                f"{path} ({reason}): repair or remove them{remedy}"
            )

    def summary(self) -> list[str]:
        """Return one line for each bad video, after a line with their number; empty where all were good."""
        if not self.reasons:
            return []
        head = f"skipped {counted(len(self.reasons), 'video')} that could not be read:"
        return [head, *(f"  {path}: {reason}" for path, reason in sorted(self.reasons.items()))]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"num_seen": self.num_seen, "num_bad": self._num_bad, "reasons": dict(self.reasons)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.num_seen = state["num_seen"]
        self._num_bad = state["num_bad"]
        self.reasons = dict(state["reasons"])


class SkippedSteps:
    """Counts steps whose loss or gradient was not finite, and stops a run that has too many in a row.

    In a row, because the remedy depends on it: a rare bad batch costs its step alone, however often it comes back,
    while different batches that fail one after another mean that training has diverged.
    """

    def __init__(self, max_in_a_row: int) -> None:
        self.max_in_a_row = max_in_a_row
        self.total = 0
        """Skipped steps of the whole run, over all resumptions."""
        self._row: list[dict[str, Any]] = []

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Count the steps of some records, as `PendingSteps.read` returns them.

        Raises:
            RunError: If more than `max_in_a_row` steps without a break were skipped. All records are counted first.
        """
        longest: list[dict[str, Any]] = []
        for record in records:
            self._row = [*self._row, dict(record)] if "skipped" in record else []
            self.total += "skipped" in record
            longest = max(longest, self._row, key=len)
        if len(longest) > self.max_in_a_row:
            videos = list(dict.fromkeys(name for record in longest for name in record["videos"]))
            more = (
                f" and {len(videos) - MAX_NAMES} more, all named in metrics.jsonl" if len(videos) > MAX_NAMES else ""
            )
            raise RunError(
                f"loss or gradient is not finite in steps {longest[0]['step']} to {longest[-1]['step']}, more than "
                f"loop.max_skipped_steps {self.max_in_a_row} in a row; no weight was changed in them: resume with a "
                "lower optim.base_lr or with optim.clip_grad 1.0, or check the videos of these steps, "
                f"{', '.join(videos[:MAX_NAMES])}{more}"
            )

    def summary(self) -> list[str]:
        """Return a line with the number of skipped steps; empty where there were none."""
        if not self.total:
            return []
        return [
            f"skipped {counted(self.total, 'step')} because loss or gradient was not finite; metrics.jsonl names them"
        ]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs: not the steps in a row, so that a resumed run may try as many again."""
        return {"total": self.total}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.total = state["total"]


class PendingSteps:
    """Finished steps whose losses and gradient norms stay on the device until they are read, many at once."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._videos: list[Sequence[str]] = []
        self._values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(
        self, record: dict[str, Any], *, loss: Tensor | None, grad_norm: Tensor | None, videos: Sequence[str]
    ) -> None:
        """Keep a step.

        Args:
            record: What is known without waiting for the device.
            loss: 0-d; None for a step that computed nothing.
            grad_norm: 0-d; None for a step that computed nothing.
            videos: Names of the step's videos, for the record of a step that was skipped.
        """
        self._records.append(record)
        self._videos.append(videos)
        if loss is not None and grad_norm is not None:
            self._values.append(torch.stack((loss.detach().float(), grad_norm.detach().float())))
        else:
            self._values.append(torch.empty(0))

    def read(self) -> list[dict[str, Any]]:
        """Wait for the device once, return the completed records, and forget them.

        Returns:
            Each with `grad_norm`, and with `loss` where it is finite. Those of skipped steps have `skipped`, true,
            and the names of their `videos`. A step that computed nothing has none of these.
        """
        computed = [values for values in self._values if len(values)]
        numbers = iter(torch.stack(computed).tolist() if computed else [])
        records: list[dict[str, Any]] = []
        for record, videos, values in zip(self._records, self._videos, self._values, strict=True):
            if len(values):
                loss, norm = next(numbers)
                record = {**record, **({"loss": loss} if math.isfinite(loss) else {}), "grad_norm": norm}
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    record |= {"skipped": True, "videos": list(videos)}
            records.append(record)
        self._records, self._videos, self._values = [], [], []
        return records
