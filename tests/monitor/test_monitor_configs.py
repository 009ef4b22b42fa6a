"""Settings out of range are refused by name."""

from __future__ import annotations

import pytest

from videomae.errors import ConfigError
from videomae.monitor.configs import MonitorConfig


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"held_out": 5.0}, "monitor.held_out is 5; it is a fraction of the videos in [0, 0.5]: did you mean 0.05?"),
        ({"held_out": -0.1}, "monitor.held_out is -0.1; it is a fraction of the videos in [0, 0.5]"),
        ({"max_clips": 3}, "monitor.max_clips is 3; use at least 4, or --monitor.enabled false"),
        ({"max_cost": 2.0}, "monitor.max_cost is 2; it is a fraction of the run in (0, 0.5]: did you mean 0.02?"),
        ({"max_cost": 0.0}, "monitor.max_cost is 0; it is a fraction of the run in (0, 0.5]"),
    ],
)
def test_a_value_out_of_range_is_refused(settings: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MonitorConfig(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == text
