"""OpenVINO behind the commands, and the clips that its 8-bit integers take their ranges from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from videomae.cli import main
from videomae.errors import ConfigError, RunError
from videomae.inference.calibration import calibrate
from videomae.inference.int8 import multiplies_exactly
from videomae.inference.predictor import Predictor
from videomae.live.configs import StreamConfig
from videomae.live.run import run_stream
from videomae.live.sinks import EventSinks
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.kept import kept_scores
from videomae.timeline.timeline import Timeline
from videomae.video.write import write_video

pytest.importorskip("openvino")
if "VIDEOMAE_TEST_OPENVINO" not in os.environ:
    pytest.skip("OpenVINO's tests have a process of their own: make test-openvino", allow_module_level=True)

exactly = pytest.mark.skipif(not multiplies_exactly(), reason="this processor's products of 8-bit integers overflow")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten videos of 40 frames."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(10):
        frames = np.random.default_rng(seed).integers(0, 256, (40, 8, 12, 3), dtype=np.uint8)
        write_video(folder / f"{seed}.mp4", frames.repeat(4, axis=1).repeat(4, axis=2), frame_rate=20.0)
    return folder


def probabilities(text: str) -> np.ndarray:
    found = json.loads(text)["predictions"]
    rows = [dict(zip(one["label_numbers"], one["probabilities"], strict=True)) for one in found]
    return np.array([[row[number] for number in sorted(row)] for row in rows])


def test_predict_gives_the_same_with_openvino(
    classifier_folder: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(classifier_folder), str(videos), "--json", "--precision", "fp32"]
    assert main(command) == 0
    expected = probabilities(capsys.readouterr().out)
    assert main([*command, "--backend", "openvino"]) == 0
    np.testing.assert_allclose(probabilities(capsys.readouterr().out), expected, atol=1e-6)


@exactly
def test_predict_in_int8_tells_what_rounding_changes_and_does_little(
    classifier_folder: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(classifier_folder), str(videos), "--json"]
    assert main([*command, "--precision", "fp32"]) == 0
    expected = probabilities(capsys.readouterr().out)
    assert main([*command, "--precision", "int8", "--backend", "openvino"]) == 0
    told = capsys.readouterr()
    apart = np.abs(probabilities(told.out) - expected)
    assert 0 < apart.max() < 0.05
    assert "int8 compared with fp32, on 8 clips: scores differ by at most 0." in told.err
    assert ", same top class in 8; videomae evaluate measures" in told.err


@exactly
def test_ranges_are_found_once_on_windows_of_all_videos(classifier_folder: Path, videos: Path) -> None:
    predictor = Predictor(classifier_folder, device="cpu", precision="int8", backend="openvino")
    assert not predictor.is_calibrated
    assert "on 8 clips" in (calibrate(predictor, [videos]) or "")
    assert predictor.is_calibrated
    assert calibrate(predictor, [videos]) is None
    one = Predictor(classifier_folder, device="cpu", precision="int8", backend="openvino")
    assert "on 8 clips" in (calibrate(one, [videos / "3.mp4"]) or "")  # 8 windows of one
    none = Predictor(classifier_folder, device="cpu", precision="int8", backend="openvino")
    assert calibrate(none, [videos / "gone.mp4"]) is None
    assert not none.is_calibrated


@exactly
def test_without_a_call_ranges_are_those_of_the_first_video(classifier_folder: Path, videos: Path) -> None:
    exact = Predictor(classifier_folder, device="cpu")
    for first in (videos / "0.mp4", np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)):
        predictor = Predictor(classifier_folder, device="cpu", precision="int8", backend="openvino")
        logits, expected = (one.view_logits(first).logits for one in (predictor, exact))
        assert predictor.is_calibrated
        assert 0 < float((logits - expected).abs().max()) < 0.1


@exactly
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_timeline_is_that_of_torch(classifier_folder: Path, videos: Path, precision: str) -> None:
    exact = Timeline.from_video(Predictor(classifier_folder, device="cpu"), videos / "1.mp4").probabilities
    predictor = Predictor(classifier_folder, device="cpu", precision=precision, backend="openvino")  # type: ignore[arg-type]
    found = Timeline.from_video(predictor, videos / "1.mp4").probabilities
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < (1e-6 if precision == "fp32" else 0.05)


def test_a_timeline_is_not_gone_on_with_by_another_backend(classifier_folder: Path, tmp_path: Path) -> None:
    by_torch, by_openvino = (Predictor(classifier_folder, device="cpu", backend=one) for one in ("torch", "openvino"))
    kept_scores(tmp_path / "events.json", by_torch, TimelineConfig(), resume=False)
    kept_scores(tmp_path / "events.json", by_torch, TimelineConfig(), resume=True)
    with pytest.raises(RunError, match="backend"):
        kept_scores(tmp_path / "events.json", by_openvino, TimelineConfig(), resume=True)


@exactly
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_features_are_those_of_torch_and_the_table_names_the_backend(
    classifier_folder: Path, videos: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {}
    for backend in ("torch", "openvino"):
        out = tmp_path / f"{backend}.parquet"
        wanted = "fp32" if backend == "torch" else precision
        command = ["features", str(classifier_folder), str(videos), "--out", str(out), "--precision", wanted]
        assert main([*command, "--backend", backend, "--min_cosine", "0.5"]) == 0
        tables[backend] = pq.read_table(out)
    vectors = {name: np.stack(table["vector"].to_numpy()) for name, table in tables.items()}
    apart = np.abs(vectors["openvino"] - vectors["torch"]).max() / np.abs(vectors["torch"]).max()
    assert apart < (1e-5 if precision == "fp32" else 0.1)
    assert b"openvino" in b"".join(tables["openvino"].schema.metadata.values())
    assert b"openvino" not in b"".join(tables["torch"].schema.metadata.values())
    assert ("int8 compared with fp32" in capsys.readouterr().out) is (precision == "int8")


@exactly
def test_evaluate_finds_its_own_ranges(
    classifier_folder: Path, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(labelled_folder / "left", data / "cut")
    shutil.copytree(labelled_folder / "right", data / "run")
    command = ["evaluate", str(classifier_folder), str(data), "--workers", "0", "--backend", "openvino"]
    found = {}
    for precision in ("fp32", "int8"):
        out = tmp_path / f"{precision}.json"
        assert main([*command, "--precision", precision, "--out", str(out)]) == 0
        found[precision] = json.loads(out.read_text(encoding="utf-8"))
    capsys.readouterr()
    assert {one["config"]["backend"] for one in found.values()} == {"openvino"}
    rows = [np.array([row["probabilities"] for row in one["videos"]]) for one in found.values()]
    assert 0 < np.abs(rows[0] - rows[1]).max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["predict", "--speed", "2"], "speed is 2 and the backend 'openvino', which merges no tokens: use speed 1"),
        (["features", "--pool", "attention"], "pooling is 'attention', whose weights the backend openvino never has"),
        (["features", "--precision", "int8", "--engine", "ray"], "each process of the engine ray has one video"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_openvino_has_not_is_refused_with_a_way_out(
    options: list[str],
    message: str,
    classifier_folder: Path,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["--out", str(tmp_path / "f.parquet")] if options[0] == "features" else []
    command = [options[0], str(classifier_folder), str(videos), *options[1:], *out, "--backend", "openvino"]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@exactly
def test_a_stream_has_no_clips_to_find_ranges_on(classifier_folder: Path, videos: Path) -> None:
    predictor = Predictor(classifier_folder, device="cpu", precision="int8", backend="openvino")
    with EventSinks() as sinks, pytest.raises(ConfigError, match=r"of a stream nothing is known: use bf16, or"):
        run_stream(predictor, str(videos / "0.mp4"), sinks, config=StreamConfig())
    calibrate(predictor, [videos])
    with EventSinks() as sinks:
        assert run_stream(predictor, str(videos / "0.mp4"), sinks, config=StreamConfig()).stats is not None
