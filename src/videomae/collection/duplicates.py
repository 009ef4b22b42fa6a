"""Files that hold the same video: by their content, or by what they look like."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from videomae.collection.fingerprints import near_pairs
from videomae.collection.measure import FileFacts

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Pairs:
    """Groups of files that hold the same video, each of two or more."""

    exact: tuple[tuple[Path, ...], ...]
    """Files with the same bytes."""
    near: tuple[tuple[Path, ...], ...]
    """Files with other bytes that look the same; of files with the same bytes the first stands for all."""
    all: tuple[tuple[Path, ...], ...]
    """Both put together."""


def find_duplicates(facts: Iterable[FileFacts]) -> Pairs:
    """Group the files that hold the same video; files that cannot be read are in no near group.

    Args:
        facts: Of each file, in the order of reports.
    """
    by_digest: dict[str, list[FileFacts]] = {}
    for one in facts:
        if one.digest is not None and one.size_bytes:  # empty files are unreadable, not copies
            by_digest.setdefault(one.digest, []).append(one)
    exact = [tuple(one.path for one in same) for same in by_digest.values() if len(same) > 1]
    seen = [same[0] for same in by_digest.values() if same[0].fingerprint is not None]
    prints = [one.fingerprint for one in seen if one.fingerprint is not None]
    pairs = [(seen[one].path, seen[other].path) for one, other in near_pairs(prints, [one.seconds for one in seen])]
    return Pairs(tuple(exact), tuple(_joined(pairs)), tuple(_joined([*exact, *pairs])))


def _joined(groups: Sequence[Sequence[T]]) -> list[tuple[T, ...]]:
    """Join groups that share a member."""
    leaders: dict[T, T] = {}

    def leader(member: T) -> T:
        leaders.setdefault(member, member)
        while leaders[member] != member:
            leaders[member] = leaders[leaders[member]]
            member = leaders[member]
        return member

    for first, *others in groups:
        for other in others:
            leaders[leader(other)] = leader(first)
    joined: dict[T, list[T]] = {}
    for member in list(leaders):
        joined.setdefault(leader(member), []).append(member)
    return [tuple(members) for members in joined.values()]
