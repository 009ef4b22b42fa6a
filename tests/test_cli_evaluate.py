"""`videomae evaluate` as typed: protocols, the report folder, models of several labels and of values."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from videomae.cli import main
from videomae.evaluation.results import load_evaluation
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord
from videomae.video.sampling import ClipConfig

SIZES = {
    "image_size": 32,
    "num_frames": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PROCESSOR = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
QUICK = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]


def saved(folder: Path, *, thresholds: dict[str, float] | None = None, **settings: object) -> str:
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(VideoMAEConfig(**SIZES, **settings))
    with torch.no_grad():
        model.classifier.weight.normal_(std=2.0)
    record = ModelRecord(sampling=ClipConfig(num_frames=8, stride=1), thresholds=thresholds)
    model.save_pretrained(folder, processor=VideoMAEImageProcessor(**PROCESSOR), record=record)
    return str(folder)


@pytest.fixture
def grouped(labelled_folder: Path, tmp_path: Path) -> Path:
    """The videos with a manifest of one label, several labels, values and groups."""
    folder = tmp_path / "grouped"
    shutil.copytree(labelled_folder, folder)
    rows = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.mp4"))]
    for name, column in (("one", "label"), ("several", "labels")):
        lines = [f"path,{column},group,speed"]
        for number, path in enumerate(rows):
            label = path.split("/")[0]
            both = f"{label};moving" if number % 2 else "" if number == 0 else label
            lines.append(f"{path},{both if column == 'labels' else label},g{number // 2},{1.5 * number}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_protocol_by_name_is_its_clips_and_crops(
    grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "model", id2label={0: "left", 1: "right"})
    for name, kind, views in (("segment-2x3", "segment", (2, 3)), ("dense-5x3", "dense", (5, 3))):
        out = tmp_path / f"{name}.json"
        command = ["evaluate", model, str(grouped / "one.csv"), "--protocol", name, "--out", str(out), *QUICK]
        assert main(command) == 0
        result = load_evaluation(out)
        assert len(result.rows) == 6
        assert (result.clip.kind, result.config.views.num_clips, result.config.views.num_crops) == (kind, *views)
    assert "95 % interval over 3 groups" in capsys.readouterr().out
    assert main([*command, "--views.num_clips", "2"]) == 2
    assert (
        "protocol is dense-5x3, which has 5 clips and 3 crops, and views asks for 2 and 3" in capsys.readouterr().err
    )


def test_the_report_shows_the_mistakes_moving_and_the_tables_beside_it_are_whole(
    grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "model", id2label={0: "left", 1: "right"})
    report = tmp_path / "report"
    command = ["evaluate", model, str(grouped / "one.csv"), "--protocol", "center", "--report", str(report), *QUICK]
    assert main(command) == 0
    assert f"report: {report / 'report.html'}" in capsys.readouterr().out
    assert sorted(path.name for path in report.iterdir()) == [
        "classes.csv",
        "evaluation.json",
        "report.html",
        "videos.csv",
    ]
    result = load_evaluation(report / "evaluation.json")
    wrong = [row for row in result.rows if row.prediction != row.label]
    assert wrong, "a random model that is always right would show nothing"
    page = (report / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert len(pictures) == len(wrong)
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        assert picture.n_frames == 8
    assert "http://" not in page.replace("http://www.w3.org", "")
    with (report / "videos.csv").open(newline="") as stream:
        videos = list(csv.DictReader(stream))
    assert [float(row["score:left"]) for row in videos] == [row.probabilities[0] for row in result.rows]
    assert [row["group"] for row in videos] == ["g0", "g0", "g1", "g1", "g2", "g2"]
    with (report / "classes.csv").open(newline="") as stream:
        assert [row["videos"] for row in csv.DictReader(stream)] == ["3", "3"]


def test_several_labels_are_measured_at_the_models_thresholds(
    grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(
        tmp_path / "model",
        thresholds={"left": 0.2, "right": 0.9},
        id2label={0: "moving", 1: "left", 2: "right"},
        problem_type="multi_label_classification",
    )
    report = tmp_path / "report"
    assert main(["evaluate", model, str(grouped / "several.csv"), "--report", str(report), *QUICK]) == 0
    assert "mean average precision" in capsys.readouterr().out
    result = load_evaluation(report / "evaluation.json")
    assert result.thresholds == (0.5, 0.2, 0.9)
    assert [row.targets for row in result.rows][:2] == [(0, 0, 0), (1, 1, 0)]
    assert result.metrics.num_groups == 3
    assert "average precision" in (report / "report.html").read_text(encoding="utf-8")


def test_values_are_measured_in_their_units(
    grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "model", id2label={0: "speed"}, problem_type="regression")
    report = tmp_path / "report"
    assert main(["evaluate", model, str(grouped / "several.csv"), "--report", str(report), *QUICK]) == 0
    assert "mean absolute error" in capsys.readouterr().out
    result = load_evaluation(report / "evaluation.json")
    assert [row.targets for row in result.rows] == [(1.5 * number,) for number in range(6)]
    assert "speed" in (report / "report.html").read_text(encoding="utf-8")
    assert main(["evaluate", model, str(grouped), *QUICK]) == 2
    assert "has no labels.csv: values of videos are read from a manifest" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["evaluate", "nowhere", "nothing", "--report", str(tmp_path / "file")]) == 2
    assert "is a file: give a folder for report.html" in capsys.readouterr().err
    assert main(["evaluate", "nowhere", "nothing", "--report", str(tmp_path / "gone" / "report")]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_an_older_result_without_groups_and_problem_is_still_read(grouped: Path, tmp_path: Path) -> None:
    model, out = saved(tmp_path / "model", id2label={0: "left", 1: "right"}), tmp_path / "new.json"
    assert main(["evaluate", model, str(grouped / "one.csv"), "--protocol", "center", "--out", str(out), *QUICK]) == 0
    values = json.loads(out.read_text())
    for name in ("problem", "thresholds"):
        del values[name]
    for row in values["videos"]:
        del row["group"], row["targets"]
    (tmp_path / "old.json").write_text(json.dumps(values))
    old, new = load_evaluation(tmp_path / "old.json"), load_evaluation(out)
    assert [row.probabilities for row in old.rows] == [row.probabilities for row in new.rows]
    assert old.choice.num_groups is None
