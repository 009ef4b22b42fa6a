"""A classifier whose right answer is known, and a video of known segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from color_models import save_color_classifier, write_color_video

SEGMENTS = [("red", 3.0), ("green", 4.0), ("blue", 2.5), ("red", 5.0), ("green", 2.0)]


@pytest.fixture(scope="session")
def color_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_color_classifier(tmp_path_factory.mktemp("color") / "model")


@pytest.fixture(scope="session")
def color_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16.5 seconds, 165 frames of 32x32."""
    return write_color_video(tmp_path_factory.mktemp("color") / "colors.mp4", SEGMENTS)
