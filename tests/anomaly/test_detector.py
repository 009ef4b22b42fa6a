"""Anomaly detection: false alarms as stated, planted anomalies found, detectors kept, bad input refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from videomae.anomaly.configs import AnomalyConfig
from videomae.anomaly.detector import conformal_threshold, fit_detector, load_detector
from videomae.anomaly.measures import WindowMeasures, measure_clips
from videomae.anomaly.run import VideoScores, score_videos
from videomae.cli import main
from videomae.errors import ConfigError
from videomae.inference.loaded import load_pretraining
from videomae.video.decode import VideoReader
from videomae.video.write import write_video

D, GRID = 12, (4, 4)


def ordinary(rng: np.random.Generator, windows: int) -> WindowMeasures:
    """Draw the measures of a video: correlated features, errors around those of each position."""
    mixing = np.random.default_rng(0).normal(size=(D, D))
    features = (rng.normal(size=(windows, D)) @ mixing).astype(np.float32)
    errors = (1 + np.arange(16).reshape(GRID) / 10 + 0.1 * rng.normal(size=(windows, *GRID))).astype(np.float32)
    times = np.arange(windows, dtype=np.float64)
    return WindowMeasures(times, times + 1, features, errors)


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_of_ordinary_windows_the_stated_fraction_is_above_the_threshold(rate: float) -> None:
    alarms = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        detector = fit_detector([ordinary(rng, 40) for _ in range(10)], AnomalyConfig(false_alarms=rate))
        fresh = detector.scores(ordinary(rng, 2000))
        alarms.append(float((fresh.score > detector.threshold).mean()))
    # 400 windows to calibrate on: the mean over 8 detectors has a standard error of about 0.0025 and 0.005.
    assert np.mean(alarms) == pytest.approx(rate, abs=0.3 * rate)


def test_the_threshold_is_the_conformal_quantile() -> None:
    scores = np.arange(1.0, 100.0)  # 99 of them
    assert conformal_threshold(scores, 0.01) == 99.0
    assert conformal_threshold(scores, 0.1) == 90.0


def test_a_feature_along_a_quiet_direction_and_an_error_at_a_quiet_position_are_both_told() -> None:
    rng = np.random.default_rng(0)
    detector = fit_detector([ordinary(rng, 60) for _ in range(6)], AnomalyConfig(false_alarms=0.05))
    strange = ordinary(rng, 3)
    spread = np.linalg.svd(np.random.default_rng(0).normal(size=(D, D)))[2][-1]  # of least variance
    strange.features[1] += (8 * spread).astype(np.float32)
    strange.errors[2, 0, 3] += 1.0
    scores = detector.scores(strange)
    assert scores.distance[1] > 3 * scores.distance[0]
    assert scores.error[2] > 3 * scores.error[:2].max()
    assert np.unravel_index(scores.maps[2].argmax(), GRID) == (0, 3)
    assert scores.score[1] > detector.threshold
    assert scores.score[2] > detector.threshold


def test_too_little_footage_for_the_rate_is_refused_with_what_is_needed() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"false_alarms is 0\.001, for which at least 999 windows .*there are 40"):
        fit_detector([ordinary(rng, 40)], AnomalyConfig(false_alarms=0.001))
    with pytest.raises(ConfigError, match=r"has 4 windows, too few to tell what is usual: give at least 20"):
        fit_detector([ordinary(rng, 4)], AnomalyConfig())
    with pytest.raises(ConfigError, match=r"false_alarms is 1\.5; it is a fraction"):
        AnomalyConfig(false_alarms=1.5)
    with pytest.raises(ConfigError, match=r"masks is 0; it is a number of at least 1"):
        AnomalyConfig(masks=0)


def drifting(num_frames: int, seed: int) -> NDArray[np.uint8]:
    """Draw stripes that drift slowly."""
    phase = np.random.default_rng(seed).uniform(0, 6.3)
    rows, columns = np.mgrid[0:32, 0:32]
    times = np.arange(num_frames)[:, None, None]
    gray = 127 + 90 * np.sin(columns / 3 + rows / 5 + phase + times / 15)
    return np.repeat(gray[..., None], 3, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six ordinary videos, and one of three seconds in whose middle second a block of noise appears."""
    root = tmp_path_factory.mktemp("footage")
    (root / "ordinary").mkdir()
    for seed in range(6):
        write_video(root / "ordinary" / f"{seed}.mp4", drifting(60, seed), frame_rate=20.0)
    frames = drifting(60, 9)
    frames[20:40, 8:20, 8:20] = np.random.default_rng(0).integers(0, 255, (20, 12, 12, 3))
    write_video(root / "strange.mp4", frames, frame_rate=20.0)
    return root


@pytest.fixture(scope="module")
def detector(footage: Path, pretraining_folder: Path) -> Path:
    output = footage / "detector.npz"
    words = ["anomaly", "fit", "--model", str(pretraining_folder), str(footage / "ordinary"), "--device", "cpu"]
    assert main([*words, "--step", "0.25", "--false_alarms", "0.05", "--out", str(output)]) == 0
    return output


def test_a_planted_anomaly_is_found_when_it_happens_and_drawn(
    footage: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / name for name in ("page.html", "curve.json")]
    for output in outputs:
        words = ["anomaly", "score", str(detector), str(footage / "strange.mp4"), "--device", "cpu"]
        assert main([*words, "--out", str(output), "--heatmap", str(tmp_path / "heat.mp4")]) == 1
    assert ", highest score" in capsys.readouterr().out
    video = json.loads(outputs[1].read_text())["videos"][0]
    peak = max(video["events"], key=lambda event: event["peak"])
    assert 0.8 <= peak["peak_second"] <= 2.2
    assert "<video controls" in outputs[0].read_text()
    with VideoReader(tmp_path / "heat.mp4") as reader:
        assert len(reader) == 30  # three seconds at ten frames a second


def test_ordinary_footage_has_no_events(footage: Path, detector: Path) -> None:
    results = list(score_videos(load_detector(detector), [footage / "ordinary" / "0.mp4"], device="cpu"))
    assert all(isinstance(one, VideoScores) and len(one.events) <= 1 for one in results)


def test_the_same_masks_are_drawn_for_every_window(footage: Path, pretraining_folder: Path) -> None:
    loaded = load_pretraining(pretraining_folder, device="cpu")
    import torch

    clips = torch.randint(0, 255, (3, 4, 3, 32, 32), dtype=torch.uint8)
    _, together = measure_clips(loaded, clips, AnomalyConfig())
    _, alone = measure_clips(loaded, clips[2:], AnomalyConfig())
    np.testing.assert_allclose(together[2:], alone, atol=1e-5)


def test_what_is_no_detector_and_another_model_are_refused(
    footage: Path,
    detector: Path,
    classifier_folder: Path,
    encoder_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no zip file")
    strange, ordinary_videos = str(footage / "strange.mp4"), str(footage / "ordinary")
    assert main(["anomaly", "score", str(tmp_path / "bad.npz"), strange]) == 2
    assert "bad.npz is no anomaly detector" in capsys.readouterr().err
    assert main(["anomaly", "score", str(detector), strange, "--model", "default", "--device", "cpu"]) == 2
    assert "are not those that the detector was fitted with" in capsys.readouterr().err
    words = ["anomaly", "fit", "--model", str(classifier_folder), ordinary_videos, "--out", str(tmp_path / "d.npz")]
    assert main(words) == 2
    assert "without a decoder" in capsys.readouterr().err
    assert main(["anomaly", "guess"]) == 2
    assert "videomae anomaly needs fit or score, got guess" in capsys.readouterr().err
    words = ["anomaly", "fit", ordinary_videos, "--out", str(tmp_path / "d.npz"), "--step", "0", "--device", "cpu"]
    assert main(words) == 2
    assert "step is 0; it is in seconds, above 0, such as --step 2" in capsys.readouterr().err
    assert not (tmp_path / "d.npz").exists()
