"""`videomae probe` end to end: the folder it writes, predictions that agree, and how it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.cli import main
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.probing.extraction import cache_files, extract, load_frozen
from videomae.probing.linear import fit_linear
from videomae.probing.videos import find_videos
from videomae.sharing.record import load_record

QUICK = ["--attentive", "false"]


@pytest.fixture(scope="module")
def probed(encoder: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "out"
    assert main(["probe", "--model", str(encoder), str(clips), "--out", str(out), "--folds", "3", *QUICK]) == 0
    return out


def test_predict_gives_the_probabilities_of_the_probe(probed: Path, encoder: Path, clips: Path) -> None:
    videos = find_videos(clips)
    loaded = load_frozen(encoder, videos.manifest.classes, clip=None, device="cpu")
    features = extract(loaded, videos.manifest, cache_files(loaded, videos.manifest, probed / "features"), workers=1)
    assert features.num_cached == 12
    penalty = json.loads((probed / "probe.json").read_text())["penalty"]
    expected = fit_linear(features.pooled, videos.labels, penalty=penalty, num_classes=2).probabilities(
        features.pooled
    )
    predictor = Predictor(probed)
    for row, probabilities in zip(videos.manifest.rows, expected, strict=True):
        found = predictor.predict(row.path)
        by_class = [found.probabilities[found.labels.index(name)] for name in ("left", "right")]
        np.testing.assert_allclose(by_class, probabilities, atol=1e-4)
    assert np.ptp(expected[:, 0]) > 1e-3


def test_the_folder_says_what_it_is_and_predicts_from_the_command(
    probed: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(probed / "model"), str(clips / "left" / "left_0000.mp4")]) == 0
    assert "left" in capsys.readouterr().out
    record, values = load_record(probed / "model"), json.loads((probed / "probe.json").read_text())
    assert record.training is not None
    assert record.training.stage == "linear probe"
    assert record.sampling is not None
    assert (record.sampling.num_frames, record.sampling.stride) == (8, 2)
    assert record.licence == "cc-by-nc-4.0"
    assert record.evaluation is not None
    assert record.evaluation.top1 == values["probes"][0]["accuracy"]
    assert record.evaluation.extra["protocol"] == "linear probe, 3 folds of groups"
    assert len(values["videos"]) == 12
    assert "Learning" not in (page := (probed / "report.html").read_text())
    assert values["advice"].replace("+", "&#43;") in page.replace("+", "&#43;")


def test_another_run_into_the_folder_needs_overwrite_and_decodes_nothing(
    probed: Path, encoder: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(probed, out)
    arguments = ["probe", "--model", str(encoder), str(clips), "--out", str(out), "--folds", "2", *QUICK]
    assert main(arguments) == 2
    assert "has a probe: choose another folder, or --overwrite; features are kept" in capsys.readouterr().err
    assert json.loads((out / "probe.json").read_text())["folds"] == 3
    assert main([*arguments, "--overwrite"]) == 0
    captured = capsys.readouterr()
    assert "features: 0 of 12 videos to be computed" in captured.err
    assert "accuracy over 2 folds of groups:" in captured.out
    assert json.loads((out / "probe.json").read_text())["num_cached"] == 12


def test_a_full_disk_while_a_probe_is_replaced_leaves_the_old_model(
    probed: Path, encoder: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    shutil.copytree(probed, out)
    before = VideoMAEForVideoClassification.from_pretrained(out / "model").state_dict()
    monkeypatch.setattr("videomae.weights.saving.save_file", full)
    arguments = ["probe", "--model", str(encoder), str(clips), "--out", str(out), "--overwrite", *QUICK]
    assert main(arguments) == 2
    after = VideoMAEForVideoClassification.from_pretrained(out / "model").state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_two_probes_share_a_cache(
    encoder: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--cache", str(tmp_path / "cache"), "--model", str(encoder), "--folds", "2", *QUICK]
    for name in ("a", "b"):
        assert main(["probe", str(clips), "--out", str(tmp_path / name), *shared]) == 0
    assert "features: 0 of 12 videos to be computed" in capsys.readouterr().err
    assert not (tmp_path / "a" / "features").exists()


def test_without_a_model_the_shipped_one_is_probed_and_told(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", str(clips), "--out", str(tmp_path / "out"), "--folds", "2", *QUICK]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("model: default, since none is named")
    assert "advice: " in captured.out
    assert Predictor(tmp_path / "out").model.config.hidden_size == 256


def test_a_classifier_keeps_its_own_norm_and_gets_the_new_classes(clips: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        id2label={0: "a", 1: "b", 2: "c"},
        problem_type="multi_label_classification",
    )
    model = VideoMAEForVideoClassification(config)
    assert model.fc_norm is not None
    torch.nn.init.normal_(model.fc_norm.weight)
    record = {"clip": {"kind": "dense", "num_frames": 8, "stride": 1}, "thresholds": {"a": 0.2}}
    model.save_pretrained(tmp_path / "fine", record=record)
    out = tmp_path / "out"
    assert (
        main(["probe", "--model", str(tmp_path / "fine"), str(clips), "--out", str(out), "--folds", "2", *QUICK]) == 0
    )
    predictor = Predictor(out)
    assert predictor.classes == ("left", "right")
    assert predictor.activation == "softmax"
    assert predictor.model.fc_norm is not None
    assert torch.equal(predictor.model.fc_norm.weight, model.fc_norm.weight)


FAULTS = {
    "no data": (["nowhere", "--out", "OUT/out"], "nowhere does not exist"),
    "no model": (["CLIPS", "--model", "nowhere", "--out", "OUT/out"], "nowhere is no folder"),
    "one fold": (["CLIPS", "--folds", "1", "--out", "OUT/out"], "folds is 1; each video needs a fold"),
    "no threads": (["CLIPS", "--workers", "0", "--out", "OUT/out"], "workers is 0"),
    "other content": (["CLIPS", "--out", "OUT"], "has other content, such as thesis.txt, so it is left alone"),
    "a file": (["CLIPS", "--out", "OUT/thesis.txt"], "is a file: choose another path"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line_and_nothing_is_written(
    case: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = FAULTS[case]
    (tmp_path / "thesis.txt").write_text("years of work")
    filled = [word.replace("CLIPS", str(clips)).replace("OUT", str(tmp_path)) for word in words]
    assert main(["probe", *filled]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
