"""Which clips of a process's batch are computed together."""

from __future__ import annotations

import pytest

from videomae.data.batches import micro_batches


@pytest.mark.parametrize("count", [1, 2, 7, 8, 12])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 12, None])
def test_micro_batches_hold_every_clip_once_and_no_more_than_asked_for(count: int, size: int | None) -> None:
    parts = micro_batches(count, size)
    assert sorted(position for part in parts for position in part) == list(range(count))
    assert all(0 < len(part) <= (size or count) for part in parts)


@pytest.mark.parametrize("count", [2, 7, 8, 12])
@pytest.mark.parametrize("size", [2, 3, 4, 5, None])
def test_the_partner_of_a_clip_is_at_the_mirrored_place_of_its_micro_batch(count: int, size: int | None) -> None:
    for part in micro_batches(count, size):
        assert [count - 1 - position for position in reversed(part)] == part
