"""An evaluation at a speed: the decisions from fewer tokens, beside those from all on the same clips."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.cli import main
from videomae.data.scan import scan_labelled
from videomae.errors import ConfigError
from videomae.evaluation.agreement import Agreement, Comparison
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.results import EvaluationConfig, EvaluationResult, load_evaluation
from videomae.evaluation.views import ViewsConfig
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import ClipConfig

SMALL = EvaluationConfig(views=ViewsConfig(num_clips=2, num_crops=1), batch_size=4, workers=0, precision="fp32")


@pytest.fixture
def fine_grid() -> VideoMAEForVideoClassification:
    """A classifier of 2 x 4 x 4 tokens that decides by little, so that what is left out shows."""
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(("cut", "jump", "run"))),
    )
    return VideoMAEForVideoClassification(config).eval()


def decisions(result: EvaluationResult) -> list[int]:
    return [row.prediction for row in result.rows]


def test_agreement_is_that_of_two_evaluations_and_the_figures_are_those_at_speed(
    fine_grid: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    tmp_path: Path,
) -> None:
    manifest = scan_labelled(videos)
    fast_config = replace(SMALL, speed=1.25)
    agreed = set()
    for scale in (1.0, 30.0):  # of the classifier: more or less sure, no other decisions
        fine_grid.classifier.weight.data.mul_(scale)
        whole = evaluate(fine_grid, manifest, processor=processor, clip=clip, config=SMALL)
        fast = evaluate(fine_grid, manifest, processor=processor, clip=clip, config=fast_config)
        assert whole.agreement is None
        found = fast.agreement
        assert found is not None
        same = np.mean([one == other for one, other in zip(decisions(fast), decisions(whole), strict=True)])
        assert found.agreement == same
        assert found.interval.low <= same <= found.interval.high
        assert (found.tokens, found.num_videos, found.top1) == (32, 6, whole.choice.top1)
        assert 1.25 <= found.fewer_operations < 1.3
        assert found.measured > 0
        assert [row.probabilities for row in fast.rows] != [row.probabilities for row in whole.rows]
        agreed.add(found.agreement)
    first, second = fast.summary()[-2:]
    assert first.startswith(f"speed 1.25: {found.merged} of 32 tokens merged in every block, 1.2")
    assert f"forward passes measured {found.measured:.2f} times as fast" in first
    assert f"decided as with all tokens {same:.2%} (95 % interval " in second
    assert second.endswith(f"of 6 videos; top-1 with all tokens {whole.choice.top1:.2%}")
    fast.save(tmp_path / "fast.json")
    assert load_evaluation(tmp_path / "fast.json") == fast


def test_several_labels_agree_where_all_that_are_present_do() -> None:
    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=16, num_attention_heads=2, num_labels=2
    )
    model = VideoMAEForVideoClassification(config)
    comparison = Comparison(model, 1.2, problem="multi_label_classification", num_videos=3)
    comparison._grid, comparison._ratios = native_grid(config), [9.0, 1.25, 1.5]
    comparison.probabilities[:] = [[0.9, 0.4], [0.9, 0.1], [0.2, 0.1]]
    fewer = np.array([[0.6, 0.1], [0.6, 0.31], [0.4, 0.1]])
    found = comparison.result(fewer, [0, 1, 2], [-1] * 3, ["a", "a", "b"], (0.5, 0.3))
    assert (found.agreement, found.top1, found.num_videos) == (1 / 3, None, 3)
    assert found.measured == 1.375  # the first batch warms up
    assert "top-1" not in " ".join(found.lines())
    assert Agreement.from_dict(found.to_dict()) == found


def test_values_have_no_agreement() -> None:
    with torch.device("meta"):
        model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=1, problem_type="regression"))
    with pytest.raises(ConfigError, match=r"speed is 2, and the model predicts values: what can agree are decisions"):
        Comparison(model, 2.0, problem="regression", num_videos=3)


def test_the_command_prints_agreement_and_speed_and_refuses_what_it_cannot(
    classifier_folder: Path,
    pretraining_folder: Path,
    labelled_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    shutil.copytree(labelled_folder / "left", data / "cut")
    shutil.copytree(labelled_folder / "right", data / "run")
    views = ["--views.num_clips", "1", "--views.num_crops", "1", "--workers", "0", "--precision", "fp32"]
    command = ["evaluate", str(classifier_folder), str(data), *views]
    assert main([*command, "--speed", "1.2"]) == 0
    told = capsys.readouterr().out
    assert "speed 1.2: " in told
    assert "times as fast" in told
    assert "decided as with all tokens " in told
    assert main(command) == 0
    assert "tokens" not in capsys.readouterr().out
    assert main([*command, "--speed", "0.9"]) == 2
    assert "speed is 0.9; it is how many times fewer operations a clip takes" in capsys.readouterr().err
    assert main([*command, "--speed", "9"]) == 2
    assert "merging all that can be merged of the 32 tokens of a clip saves less: use at" in capsys.readouterr().err
    assert main(["evaluate", str(pretraining_folder), str(data), *views, "--speed", "1.2"]) == 2
    assert "without a classifier: fine-tune it first" in capsys.readouterr().err
