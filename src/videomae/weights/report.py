"""What happened to every tensor when a model was loaded, for programs and for people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from videomae.weights.json_files import printable_name

Status = Literal["loaded", "renamed", "split", "adapted", "recomputed", "re-initialized", "unused", "unexpected"]

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class TensorStatus:
    """What happened to one tensor of a file."""

    tensor: str
    """Its name in the file."""
    name: str
    """Its name here."""
    status: Status
    """Loaded as it is, under another name, cut into several, changed; computed here anyway; replaced by random
    values because its shape does not fit; ignored for a known reason; ignored for none."""
    detail: str = ""
    """Why, or how."""


@dataclass(frozen=True)
class LoadReport:
    """Where each tensor of a model came from, and where each tensor of the file went; by our names."""

    loaded: tuple[str, ...]
    """Taken from the file."""
    fresh: tuple[str, ...]
    """In the model, not taken from the file: randomly initialized."""
    unused: tuple[str, ...]
    """In the file, not in the model."""
    missing: tuple[str, ...] = ()
    """Those of `fresh` that the file should have had."""
    unexpected: tuple[str, ...] = ()
    """Those of `unused` that nothing explains."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    """Name, shape in the file and shape in the model of those of `fresh` whose shapes differ."""
    statuses: tuple[TensorStatus, ...] = ()
    """What happened to each tensor of the file."""
    source: str = ""
    """What was loaded."""
    layout: str = ""
    """How its tensors were named."""
    repairs: tuple[str, ...] = ()
    """What the file said wrongly, and what was done about it."""
    notes: tuple[str, ...] = ()
    """What was assumed or chosen."""

    def lines(self) -> list[str]:
        """Return a summary for people, one line for each group of tensors."""
        rows = [f"{self.source}: {self.layout}"] if self.source else []
        for title, names in (
            ("loaded", self.loaded),
            ("randomly initialized", self.fresh),
            ("not used", self.unused),
        ):
            rows.append(f"{title}: {len(names)} tensors{': ' + _by_group(names) if names else ''}")
        changed = sorted({f"{one.name}: {one.detail}" for one in self.statuses if one.status == "adapted"})
        rows += [f"changed: {line}" for line in changed]
        rows += [f"repaired: {line}" for line in self.repairs]
        rows += [f"note: {line}" for line in self.notes]
        return rows

    def without_prefix(self, prefix: str) -> LoadReport:
        """Return the report in the names of a part of the model, such as the bare encoder."""

        def cut(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name.removeprefix(prefix) for name in names)

        return replace(
            self,
            loaded=cut(self.loaded),
            fresh=cut(self.fresh),
            unused=cut(self.unused),
            missing=cut(self.missing),
            unexpected=cut(self.unexpected),
            mismatched=tuple((name.removeprefix(prefix), theirs, ours) for name, theirs, ours in self.mismatched),
            statuses=tuple(replace(one, name=one.name.removeprefix(prefix)) for one in self.statuses),
        )

    def counts(self) -> dict[str, int]:
        """Return how many tensors of the file have each status."""
        counted: dict[str, int] = {}
        for one in self.statuses:
            counted[one.status] = counted.get(one.status, 0) + 1
        return counted

    def __getitem__(self, key: str) -> Any:
        """Return one of the four lists that transformers' `output_loading_info` has."""
        replaced = {name for name, _, _ in self.mismatched}
        lists: dict[str, Any] = {
            "missing_keys": {name for name in self.fresh if name not in replaced},
            "unexpected_keys": set(self.unused),
            "mismatched_keys": set(self.mismatched),
            "error_msgs": [],
        }
        return lists[key]


def _by_group(names: Iterable[str]) -> str:
    groups: dict[str, int] = {}
    for name in names:
        group = ".".join(part for part in name.split(".")[:3] if not part.isdigit())
        groups[group] = groups.get(group, 0) + 1
    return ", ".join(f"{group} ({count})" for group, count in groups.items())


def listed(names: Iterable[str]) -> str:
    """Return all names on one line, those that differ by the number of a block alone as one.

    `a.0.w`, `a.1.w` and `a.3.w` are shown as `a.{0-1,3}.w`.
    """
    groups: dict[str, list[int]] = {}
    for name in map(printable_name, names):
        match = _NUMBER.search(name)
        if match is None:
            groups.setdefault(name, [])
        else:
            groups.setdefault(f"{name[: match.start()]}\0{name[match.end() :]}", []).append(int(match[0]))
    return ", ".join(name.replace("\0", _ranges(numbers)) for name, numbers in groups.items())


def _ranges(numbers: list[int]) -> str:
    if len(set(numbers)) <= 1:
        return str(numbers[0]) if numbers else ""
    shown: list[str] = []
    ordered = sorted(set(numbers))
    start = ordered[0]
    for number, following in zip(ordered, [*ordered[1:], None], strict=True):
        if following != number + 1:
            shown.append(str(start) if start == number else f"{start}-{number}")
            start = following if following is not None else number
    return "{" + ",".join(shown) + "}"
