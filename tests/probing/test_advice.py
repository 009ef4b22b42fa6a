"""The sentence of advice follows its rules."""

from __future__ import annotations

from typing import Any

import pytest

from videomae.evaluation.metrics import Interval
from videomae.probing.advice import advice

USUAL: dict[str, Any] = {
    "best": "linear",
    "accuracy": 0.8,
    "interval": Interval(0.75, 0.85),
    "majority": 0.5,
    "gain": 0.05,
    "gain_interval": Interval(0.01, 0.08),
    "labels": 300,
}
CASES = {
    "not above the majority": ({"interval": Interval(0.49, 0.85)}, "fine-tune, or try another encoder"),
    "almost all right": ({"accuracy": 0.96, "interval": Interval(0.93, 0.99)}, "the probe is enough"),
    "labels help": (
        {},
        "label more: twice the labels, 600 instead of 300, are worth +5.0% expected (+1.0% to +8.0%)",
    ),
    "labels may not help": ({"gain_interval": Interval(-0.01, 0.08)}, "fine-tune: twice the labels add little"),
    "labels hardly help": ({"gain": 0.01}, "fine-tune: twice the labels add little to the linear probe, +1.0%"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_advice_is_that_of_the_first_rule_that_fits(case: str) -> None:
    changed, sentence = CASES[case]
    assert advice(**{**USUAL, **changed}).startswith(sentence)
