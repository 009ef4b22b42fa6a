"""What a file has and the model does not use is not dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_loading import load

from tiny_models import ALL_CLASSES, make_model
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


@pytest.mark.parametrize("held", ALL_CLASSES)
@pytest.mark.parametrize("whole_config", [False, True])
def test_the_norm_that_mean_pooling_leaves_out_is_named(
    held: type[VideoMAEPreTrainedModel], whole_config: bool, tmp_path: Path
) -> None:
    source = make_model(held, use_mean_pooling=False)
    source.save_pretrained(tmp_path)
    if whole_config:
        options: dict[str, Any] = {"config": source.config.replace(use_mean_pooling=True)}
    else:
        options = {"use_mean_pooling": True}
    _, report, warned = load(held, tmp_path, **options)
    norm = "layernorm" if held is VideoMAEModel else "videomae.layernorm"
    assert set(report.unused) == {f"{norm}.weight", f"{norm}.bias"}
    assert any("are ignored: " in text and "layernorm.bias" in text and "layernorm.weight" in text for text in warned)


def test_a_decoder_in_a_model_without_one_goes_without_saying(tmp_path: Path) -> None:
    make_model(VideoMAEForPreTraining, use_mean_pooling=True).save_pretrained(tmp_path)
    _, report, warned = load(VideoMAEModel, tmp_path)
    assert "mask_token" in " ".join(report.unused)
    assert not warned
