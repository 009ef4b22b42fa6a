"""The classifier whose right answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmarks are no part of the installed package

from color_models import save_color_classifier
from videomae.inference.predictor import Predictor


@pytest.fixture(scope="session")
def color_predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(save_color_classifier(tmp_path_factory.mktemp("live") / "model"), device="cpu")
