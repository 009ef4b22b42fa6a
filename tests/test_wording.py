"""Numbers in sentences."""

from __future__ import annotations

from videomae.wording import counted


def test_a_noun_is_in_the_plural_for_every_number_but_one() -> None:
    assert [counted(number, "missing video") for number in (0, 1, 2)] == [
        "0 missing videos",
        "1 missing video",
        "2 missing videos",
    ]
