"""The released models themselves, against the numbers that were published with them.

Never run by default, since it downloads about 8 GB into the Hub's cache:

    pytest -m network tests/weights/test_published_checkpoints.py

`-k base-short` chooses some, HF_HOME says where the cache is. The video and the mask are those with which the numbers
were made. The two small models are left out: their published numbers were made with a number of heads that they
were not trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor

pytestmark = pytest.mark.network

VIDEO = ("hf-internal-testing/spaghetti-video", "eating_spaghetti.npy", "dataset")
MASK = ("hf-internal-testing/bool-masked-pos", "bool_masked_pos.pt", "model")
NUM_MASKED, PATCH_VALUES = 1408, 1536
# The numbers were made on frames that another program resized: a grey level here and there. A lost bias, another
# pooling or a wrong number of heads moves them by hundredths and more.
TOLERANCE = 1e-3

PRETRAINED = {
    "base": [[0.7739, 0.7968, 0.7089], [0.6701, 0.7487, 0.6209], [0.4287, 0.5158, 0.4773]],
    "base-short": [[0.7994, 0.9612, 0.8508], [0.7401, 0.8958, 0.8302], [0.5862, 0.7468, 0.7325]],
    "large": [[0.7149, 0.7997, 0.6966], [0.6768, 0.7869, 0.6948], [0.5139, 0.6221, 0.5605]],
    "base-short-ssv2": [[0.4712, 0.5296, 0.5786], [0.2278, 0.2729, 0.4026], [0.0352, 0.0730, 0.2506]],
    "base-ssv2": [[0.8131, 0.8727, 0.8546], [0.7366, 0.9377, 0.8870], [0.5935, 0.8874, 0.8564]],
}
FINETUNED = {
    "large-finetuned-kinetics": (400, [0.0771, 0.0011, -0.3625]),
    "huge-finetuned-kinetics": (400, [0.2433, 0.1632, -0.4894]),
    "base-short-finetuned-kinetics": (400, [0.6588, 0.0990, -0.2493]),
    "base-finetuned-kinetics": (400, [0.3669, -0.0688, -0.2421]),
    "base-short-finetuned-ssv2": (174, [-0.0537, -0.1539, -0.3266]),
    "base-finetuned-ssv2": (174, [0.1961, -0.8337, -0.6389]),
}
LOSSES = {True: 0.5142, False: 0.6469}  # of base-short, with normalised targets and without


def download(repository: str, name: str, kind: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, repo_type=kind))


@pytest.fixture(scope="module")
def pixel_values() -> Tensor:
    """The 16 frames, prepared with the mean and std of 0.5 that the numbers were made with."""
    frames = np.load(download(*VIDEO))
    assert frames.shape[0] == 16
    values: Tensor = VideoMAEImageProcessor()(list(frames), return_tensors="pt").pixel_values
    return values


@pytest.fixture(scope="module")
def mask() -> Tensor:
    found: Tensor = torch.load(download(*MASK), weights_only=True)
    assert found.sum() == NUM_MASKED
    return found.bool().reshape(1, -1)


def load(cls: Any, name: str, **settings: Any) -> Any:
    model, report = cls.from_pretrained(f"MCG-NJU/videomae-{name}", output_loading_info=True, **settings)
    assert not report.fresh, "every tensor comes from the file"
    return model


@pytest.mark.parametrize("name", PRETRAINED)
@torch.no_grad()
def test_pretrained_network_predicts_the_published_pixels(name: str, pixel_values: Tensor, mask: Tensor) -> None:
    logits = load(VideoMAEForPreTraining, name)(pixel_values, bool_masked_pos=mask).logits
    assert logits.shape == (1, NUM_MASKED, PATCH_VALUES)
    torch.testing.assert_close(logits[0, :3, :3], torch.tensor(PRETRAINED[name]), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("is_normalised", LOSSES)
@torch.no_grad()
def test_pretrained_network_has_the_published_loss(is_normalised: bool, pixel_values: Tensor, mask: Tensor) -> None:
    model = load(VideoMAEForPreTraining, "base-short", norm_pix_loss=is_normalised)
    loss = model(pixel_values, bool_masked_pos=mask).loss
    assert loss.item() == pytest.approx(LOSSES[is_normalised], abs=TOLERANCE)


@pytest.mark.parametrize("name", FINETUNED)
@torch.no_grad()
def test_finetuned_network_has_the_published_logits(name: str, pixel_values: Tensor) -> None:
    num_labels, first = FINETUNED[name]
    logits = load(VideoMAEForVideoClassification, name)(pixel_values).logits
    assert logits.shape == (1, num_labels)
    torch.testing.assert_close(logits[0, :3], torch.tensor(first), atol=TOLERANCE, rtol=0)
