"""Remote videos wherever the command takes videos, from a real S3 server, with faults on the way."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from loopback_s3 import Bucket
from test_cli_manifests import TRAINING
from videomae.cli import main
from videomae.data.manifest import Manifest
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.errors import ManifestError
from videomae.inference.features import load_features

pytestmark = pytest.mark.slow


@pytest.fixture
def remote(bucket: Bucket, labelled_folder: Path) -> str:
    return bucket.put_folder(labelled_folder, "labelled")


def rows(manifest: Manifest) -> list[tuple[str, int | None]]:
    return [(manifest.relative_path(row), row.label) for row in manifest.rows]


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [values["loss"] for values in map(json.loads, lines) if "loss" in values]


def test_a_remote_folder_is_listed_as_a_local_one(bucket: Bucket, remote: str, labelled_folder: Path) -> None:
    bucket.put("labelled/.hidden/x.mp4", b"x")
    bucket.put("labelled/left/notes.txt", b"x")
    for scan in (scan_labelled, scan_unlabelled):
        for name in (remote, Path(remote), f"{remote}/"):  # a plain path has lost a slash
            found = scan(name)
            assert rows(found) == rows(scan(labelled_folder))
            assert str(found.root) == remote
    bucket.put("labelled/stray.mp4", b"x")
    with pytest.raises(ManifestError, match=r"s3://videos/labelled/stray\.mp4 lies next to the class folders"):
        scan_labelled(remote)
    with pytest.raises(ManifestError, match=r"s3://videos/nothing holds no video, at any depth"):
        scan_unlabelled("s3://videos/nothing")
    with pytest.raises(ManifestError, match=r"s3://videos/none\.csv does not exist"):
        scan_labelled("s3://videos/none.csv")


def test_a_remote_manifest_names_its_videos_from_where_it_is(
    bucket: Bucket, remote: str, labelled_folder: Path
) -> None:
    text = "path,label,split\nlabelled/left/0.mp4,b,train\ns3://videos/labelled/right/1.mp4,a,test\n"
    bucket.put("list.csv", f"{text}{labelled_folder}/left/2.mp4,b,train\n".encode())
    bucket.put("list.classes.txt", b"b\na\n")
    bucket.put("labels/labels.csv", b"path,label\n../labelled/left/0.mp4,b\n")
    found = scan_labelled("s3://videos/list.csv")
    assert found.classes == ("b", "a")
    paths = {str(row.path): row.label for row in found.rows}
    assert paths == {f"{remote}/left/0.mp4": 0, f"{remote}/right/1.mp4": 1, f"{labelled_folder}/left/2.mp4": 0}
    assert [row.label for row in scan_labelled("s3://videos/labels", subset=True).rows] == [0]


def test_training_on_remote_videos_is_training_on_local_ones_and_names_what_cannot_be_read(
    bucket: Bucket, remote: str, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRAINING, "--mask.ratio", "0.75", "--monitor.enabled", "false", "--schedule.steps", "6"]
    words += ["--loop.log_steps", "1", "--loop.max_bad_fraction", "1", "--loop.workers", "2"]
    bucket.proxy.faults["left/0.mp4"] = ["503", "cut"]
    bucket.proxy.always["right/1.mp4"] = "slow"
    assert main(["pretrain", remote, *words, "--out", str(tmp_path / "remote")]) == 0
    assert main(["pretrain", str(labelled_folder), *words, "--out", str(tmp_path / "local")]) == 0
    assert losses(tmp_path / "remote") == losses(tmp_path / "local")
    assert len(losses(tmp_path / "remote")) == 6
    assert f"train: {remote}" in (tmp_path / "remote" / "recipe.yaml").read_text(encoding="utf-8")
    second = [one[1] for one in bucket.proxy.requests if one[0] == "GET" and one[1].endswith(".mp4")]
    assert len(second) <= 6 * 2 + 4, "the cache gives what was fetched before, in this worker or the other"
    capsys.readouterr()
    paths = [f"{remote}/{name}" for name in ("left/0.mp4", "left/1.mp4", "right/0.mp4", "gone.mp4", "right/2.mp4")]
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["path"], *([path] for path in paths)])
    bucket.proxy.always["right/2.mp4"] = "503"
    assert main(["pretrain", str(tmp_path / "list.csv"), *words, "--out", str(tmp_path / "listed")]) == 0
    told = "".join(capsys.readouterr())
    assert "s3://videos/labelled/gone.mp4" in told
    assert "s3://videos/labelled/right/2.mp4" in told
    assert "left/1.mp4 " not in told


def test_evaluation_and_fine_tuning_take_addresses(
    remote: str, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, place in (("remote", remote), ("local", str(labelled_folder))):
        words = ["--evaluation.workers", "0", "--init", "null", *TRAINING, "--out", str(tmp_path / name)]
        assert main(["finetune", place, *words]) == 0
        out = str(tmp_path / f"{name}.json")
        assert main(["evaluate", str(tmp_path / name), place, "--workers", "0", "--out", out]) == 0
    one, other = (json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("remote", "local"))
    assert losses(tmp_path / "remote") == losses(tmp_path / "local")
    assert one["videos"] == other["videos"]


def test_predict_features_check_and_prepare_take_addresses(
    bucket: Bucket,
    remote: str,
    labelled_folder: Path,
    classifier_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = str(classifier_folder)
    found = []
    for place in (remote, str(labelled_folder)):
        assert main(["predict", model, place, f"{place}/left/1.mp4#t=0.2,0.8", "--json"]) == 0
        text = capsys.readouterr().out
        assert f"{place}/left/0.mp4" in text
        found.append(json.loads(text.replace(place, "PLACE"))["predictions"])
        out = tmp_path / "f.safetensors"
        assert main(["features", model, place, "--out", str(out)]) == 0
        features = load_features(out)
        assert features.videos[0].path == f"{place}/left/0.mp4"
        found.append([one.features.tolist() for one in features.videos])
        capsys.readouterr()
    assert found[:2] == found[2:]
    bucket.put("labelled/left/cut.mp4", (labelled_folder / "left" / "0.mp4").read_bytes()[:-300])
    options = ["--num_frames", "4", "--stride", "1", "--workers", "1"]
    assert main(["data", "check", remote, *options, "--out", str(tmp_path / "check")]) == 1
    assert "left/cut.mp4" in (tmp_path / "check" / "skip.txt").read_text(encoding="utf-8")
    assert "7 videos in s3://videos/labelled" in capsys.readouterr().out
    prepared = ["data", "prepare", remote, str(tmp_path / "out"), "--short_side", "16", "--workers", "1"]
    assert main(prepared) == 1  # the one that is cut
    assert "left out: left/cut.mp4" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 6
    assert main(prepared) == 1
    assert "6 of 7 videos are prepared, 6 of them before this call" in capsys.readouterr().out


def test_commands_on_footage_take_folders_parts_and_manifests_of_an_object_store(
    bucket: Bucket,
    remote: str,
    labelled_folder: Path,
    classifier_folder: Path,
    pretraining_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket.put("list.csv", b"path,start,end\nlabelled/left/1.mp4,0.2,0.8\n")
    sources = [remote, "s3://videos/list.csv"]
    part = f"{remote}/left/1.mp4#t=0.2,0.8"
    names = [*(f"{remote}/{side}/{number}.mp4" for side in ("left", "right") for number in range(3)), part]
    model, device = str(classifier_folder), ["--device", "cpu"]
    assert main(["timeline", model, *sources, *device, "--out", str(tmp_path / "t.json")]) == 0
    assert [one["path"] for one in json.loads((tmp_path / "t.json").read_text())["videos"]] == names
    index = str(tmp_path / "i.parquet")
    assert main(["features", model, *sources, "--step", "0.2", *device, "--out", index]) == 0
    capsys.readouterr()
    assert main(["search", index, "--like", part, "--json", *device]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["like"] == part
    assert found["matches"]
    assert main(["dedupe", *sources, "--workers", "1", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["videos"] == len(names)
    detector, scores = str(tmp_path / "d.npz"), tmp_path / "s.json"
    fit = ["--step", "0.04", "--masks", "1", "--false_alarms", "0.1", *device]
    assert main(["anomaly", "fit", str(pretraining_folder), *sources, *fit, "--out", detector]) == 0
    assert main(["anomaly", "score", detector, *sources, *device, "--out", str(scores)]) in (0, 1)
    assert [one["path"] for one in json.loads(scores.read_text())["videos"]] == names
    images = str(tmp_path / "{video}.png")
    assert main(["explain", model, *sources, "--methods", "rollout", *device, "--out", images]) == 0
    assert len(list(tmp_path.glob("*.png"))) == len(names)
