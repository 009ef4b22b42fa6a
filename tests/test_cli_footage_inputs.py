"""Every command on footage takes files, folders, manifests and addresses alike, and says what an address lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from loopback_web import serve_folder
from videomae.anomaly.detector import load_detector
from videomae.cli import main
from videomae.inference.features import load_features
from videomae.video.write import write_video

FIT = ["--step", "0.1", "--masks", "1", "--false_alarms", "0.1", "--batch_size", "8"]


class Footage(NamedTuple):
    """Two videos of three seconds that show the same, wherever they are."""

    root: Path
    address: str

    @property
    def sources(self) -> list[str]:
        """One source of each kind."""
        return [
            str(self.root / "videos" / "a.mp4"),
            str(self.root / "videos"),
            str(self.root / "list.csv"),
            f"{self.address}/videos/b.mp4?token=1//2",
            f"{self.address}/list.csv",
        ]

    @property
    def names(self) -> list[str]:
        """What the sources hold, in order."""
        a, b = (str(self.root / "videos" / name) for name in ("a.mp4", "b.mp4"))
        part = "videos/a.mp4#t=0.5,2"
        return [a, a, b, f"{self.root}/{part}", self.sources[3], f"{self.address}/{part}"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Footage]:
    root = tmp_path_factory.mktemp("footage")
    (root / "videos").mkdir()
    back = np.random.default_rng(0).integers(0, 200, (6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    frames = np.repeat(back[None], 30, axis=0)
    for number, (y, x) in enumerate(np.random.default_rng(1).integers(0, 40, (30, 2))):
        frames[number, y : y + 10, x : x + 10] = 255
    for name, quality in (("a", 18), ("b", 30)):
        write_video(root / "videos" / f"{name}.mp4", frames, frame_rate=10.0, quality=quality)
    (root / "list.csv").write_text("path,start,end\nvideos/a.mp4,0.5,2\n")
    (root / "text.mp4").write_bytes(b"no video at all " * 100)
    with pytest.MonkeyPatch.context() as patch, serve_folder(root) as (address, _):
        patch.setenv("VIDEOMAE_CACHE", str(root / "cache"))
        yield Footage(root, address)


def test_predict(footage: Footage, classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(classifier_folder), *footage.sources, "--json", "--device", "cpu"]) == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert [one["path"] for one in predictions] == footage.names
    assert predictions[2]["probabilities"] == predictions[4]["probabilities"]
    assert predictions[3]["probabilities"] == predictions[5]["probabilities"] != predictions[0]["probabilities"]


def test_timeline(footage: Footage, classifier_folder: Path, tmp_path: Path) -> None:
    words = ["timeline", str(classifier_folder), *footage.sources, "--device", "cpu", "--step", "0.3"]
    assert main([*words, "--out", str(tmp_path / "t.json"), str(tmp_path / "{video}.srt")]) == 0
    found = json.loads((tmp_path / "t.json").read_text())["videos"]
    assert [one["path"] for one in found] == footage.names
    assert found[2]["windows"] == found[4]["windows"]
    assert found[3]["windows"] == found[5]["windows"]
    assert 0.5 <= found[3]["windows"]["start"][0] < found[3]["windows"]["end"][-1] <= 2.1
    names = {"a", "b", "a-0.5-2", "b-2", "a-0.5-2-2"}
    assert {one.name for one in tmp_path.glob("*.srt")} == {f"{name}.srt" for name in names}


def test_features(footage: Footage, encoder_folder: Path, tmp_path: Path) -> None:
    words = ["features", str(encoder_folder), *footage.sources, "--device", "cpu", "--step", "0.3", "--out"]
    assert main([*words, str(tmp_path / "f.parquet")]) == 0
    table = pq.read_table(tmp_path / "f.parquet")
    rows: dict[str, list[list[float]]] = {name: [] for name in footage.names}
    for path, vector in zip(table["path"].to_pylist(), table["vector"].to_pylist(), strict=True):
        rows[path].append(vector)
    assert rows[footage.names[2]] == rows[footage.names[4]]
    assert rows[footage.names[3]] == rows[footage.names[5]]
    assert all(rows.values())
    assert main([*words, str(tmp_path / "f.safetensors")]) == 0
    assert [one.path for one in load_features(tmp_path / "f.safetensors").videos] == footage.names


def test_search(footage: Footage, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(tmp_path / "index.parquet")
    words = ["--step", "0.3", "--device", "cpu", "--out", index]
    assert main(["features", str(encoder_folder), f"{footage.root}/videos", *words]) == 0
    search = ["search", index, "--top_k", "3", "--json", "--device", "cpu", "--like"]
    capsys.readouterr()
    found = []
    for like in (f"{footage.address}/videos/b.mp4", f"{footage.root}/videos/b.mp4"):
        assert main([*search, like, "--start", "1", "--out", str(tmp_path / "s.html")]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["like"] == f"{footage.address}/videos/b.mp4#t=1"
    # Over http the clip is another video than the one in the index, which is the nearest to it.
    assert found[0]["matches"][0]["path"] == f"{footage.root}/videos/b.mp4"
    assert found[0]["matches"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert all(one["path"] != f"{footage.root}/videos/b.mp4" or one["end"] <= 1 for one in found[1]["matches"])
    assert main([*search, f"{footage.address}/list.csv"]) == 0
    assert json.loads(capsys.readouterr().out)["like"] == footage.names[5]


@pytest.mark.slow
def test_dedupe(footage: Footage, tmp_path: Path) -> None:
    assert main(["dedupe", *footage.sources, "--workers", "1", "--out", str(tmp_path / "d.json")]) == 1
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["videos"] == 5
    assert {name for pair in found["pairs"] for name in (pair["one"], pair["other"])} == set(footage.names)
    assert found["errors"] == []


def test_anomaly(footage: Footage, pretraining_folder: Path, tmp_path: Path) -> None:
    detector, out = tmp_path / "d.npz", tmp_path / "scores.json"
    words = ["anomaly", "fit", str(pretraining_folder), *footage.sources, *FIT, "--device", "cpu"]
    assert main([*words, "--out", str(detector)]) == 0
    assert load_detector(detector).num_videos == len(footage.names)
    heat = str(tmp_path / "heat-{video}.mp4")
    words = ["anomaly", "score", str(detector), *footage.sources, "--device", "cpu", "--heatmap", heat]
    assert main([*words, "--out", str(out)]) in (0, 1)
    videos = json.loads(out.read_text())["videos"]
    assert [one["path"] for one in videos] == footage.names
    assert videos[2]["windows"] == videos[4]["windows"]
    names = {"a", "b", "a-0.5-2", "b-2", "a-0.5-2-2"}
    assert {one.name for one in tmp_path.glob("*.mp4")} == {f"heat-{name}.mp4" for name in names}


def test_explain(footage: Footage, classifier_folder: Path, tmp_path: Path) -> None:
    words = ["explain", str(classifier_folder), *footage.sources, "--methods", "rollout", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "{video}.png"), "--video_out", str(tmp_path / "{video}.mp4")]) == 0
    names = {"a", "b", "a-0.5-2", "b-2", "a-0.5-2-2"}
    for suffix in (".png", ".mp4"):
        assert {one.stem for one in tmp_path.glob(f"*{suffix}")} == names
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "b-2.mp4").read_bytes()


@pytest.mark.slow
def test_addresses_without_a_video_are_a_line_each_and_the_others_are_done(
    footage: Footage,
    classifier_folder: Path,
    pretraining_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {
        f"{footage.address}/gone.mp4": "does not exist: check the address",
        f"{footage.address}/text.mp4": "or not a video",
        f"{footage.address}/videos/": "a folder behind http cannot be listed",
    }
    model, good, out = str(classifier_folder), str(footage.root / "videos"), str(tmp_path / "out")
    for words, made in {
        ("predict", model, good, *said): "a.mp4",
        ("timeline", model, good, *said, "--out", f"{out}.json"): f"{out}.json",
        ("features", model, good, *said, "--out", f"{out}.parquet"): f"{out}.parquet",
        ("features", model, good, *said, "--out", f"{out}.safetensors"): f"{out}.safetensors",
        ("dedupe", good, *said, "--workers", "1"): "b.mp4",
        ("anomaly", "fit", str(pretraining_folder), good, *said, *FIT, "--out", f"{out}.npz"): f"{out}.npz",
        ("anomaly", "score", f"{out}.npz", good, *said): "a.mp4: ",
        ("explain", model, good, *said, "--methods", "rollout", "--out", f"{out}{{video}}.png"): f"{out}b.png",
    }.items():
        assert main([*words, *(["--device", "cpu"] if words[0] != "dedupe" else [])]) == 2, words
        printed = capsys.readouterr()
        assert made in printed.out or Path(made).is_file(), words
        lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == len(said), (words, printed.err)
        for address, why in said.items():
            assert [why in line for line in lines if address in line] == [True], (words, lines)
    assert main(["search", f"{out}.parquet", "--like", f"{footage.address}/gone.mp4", "--device", "cpu"]) == 2
    assert f"{footage.address}/gone.mp4 does not exist" in capsys.readouterr().err
