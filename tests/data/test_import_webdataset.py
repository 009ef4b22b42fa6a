"""Tar shards become manifests whose rows are read in place, as exactly as from files."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from loopback_s3 import Bucket
from odd_videos import encode_video
from videomae.cli import main
from videomae.data.configs import ImportConfig
from videomae.data.importing import import_manifest
from videomae.data.manifest_file import read_manifest
from videomae.errors import ManifestError, VideoReadError
from videomae.video.decode import VideoReader, read_clip
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader

ORDER = [17, 3, 3, 29, 0, 18]


def shard(path: Path, files: dict[str, bytes], *, format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("videos")
    kinds = {"a.mp4": {"g": "6", "bf": "2"}, "b.mkv": {"g": "6", "bf": "2"}, "c.mp4": {"g": "1"}}
    return {
        name: encode_video(folder / name, options=options, seed=seed).read_bytes()
        for seed, (name, options) in enumerate(kinds.items())
    }


def test_rows_are_read_in_the_shard_as_from_files(
    videos: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "deep/ü 1.mp4": videos["a.mp4"],
        "deep/ü 1.cls": b"1\n",
        "deep/2.cls": b"0",
        "deep/2.mkv": videos["b.mkv"],
        "lonely.txt": b"x",
    }
    shard(tmp_path / "s" / "train-000.tar", files)
    shard(tmp_path / "s" / "test-000.tar", {"3.cls": b"1", "3.mp4": videos["c.mp4"]}, format=tarfile.GNU_FORMAT)
    (tmp_path / "names.txt").write_text("walk\nrun\n", encoding="utf-8")
    out = tmp_path / "m.csv"
    words = ["data", "import", "webdataset", str(tmp_path / "s"), str(out), "--labels", str(tmp_path / "names.txt")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "3 videos" in told
    assert "train 2, test 1" in told
    assert "1 samples have no video" in told
    manifest = read_manifest(out, labelled=True)
    assert manifest.classes == ("walk", "run")
    found = {row.path.name: (manifest.classes[row.label or 0], row.split) for row in manifest.rows}
    assert found == {"ü 1.mp4": ("run", "train"), "2.mkv": ("walk", "train"), "3.mp4": ("run", "test")}
    assert manifest.relative_path(manifest.rows[0]).startswith("s/test-000.tar#bytes=")
    store = IndexStore(tmp_path, (tmp_path / "index",))
    sources = {"ü 1.mp4": "a.mp4", "2.mkv": "b.mkv", "3.mp4": "c.mp4"}
    for row in manifest.rows:
        wanted = read_clip(videos[sources[row.path.name]], ORDER)
        with open_reader(row.source, store=store) as reader:
            assert (reader.frames(ORDER) == wanted).all()
        again = IndexStore(tmp_path, (tmp_path / "index",))  # one that has looked already waits before it looks again
        assert again.get(EncodedFile(row.path)) is not None
        with open_reader(row.source, store=again) as reader:
            assert isinstance(reader, VideoReader)
            assert reader._is_kept
            assert (reader.frames(ORDER) == wanted).all()
    with open_reader(f"{manifest.rows[0].path}#t=0.4,0.8") as reader:
        assert (reader.frames([0]) == read_clip(videos["c.mp4"], [10])).all()


def test_labels_come_from_json_and_text_and_other_keys_are_columns(videos: dict[str, bytes], tmp_path: Path) -> None:
    video = videos["a.mp4"]
    one = {"label": "run", "group": "g1", "split": "val", "fps": 25, "note": "ä"}
    path = shard(
        tmp_path / "a.tar",
        {
            "1.mp4": video,
            "1.json": json.dumps(one).encode(),
            "1.txt": b"a caption",
            "2.json": b'"sit"',
            "2.mp4": video,
            "3.txt": b" stand \n",
            "3.mp4": video,
        },
    )
    import_manifest("webdataset", path, tmp_path / "m.csv", ImportConfig())
    manifest = read_manifest(tmp_path / "m.csv", labelled=False)
    labels = {row.path.name: None if row.label is None else manifest.classes[row.label] for row in manifest.rows}
    assert labels == {"1.mp4": "run", "2.mp4": "sit", "3.mp4": "stand"}
    (first,) = (row for row in manifest.rows if row.path.name == "1.mp4")
    assert (first.group, first.split) == ("g1", "val")
    assert dict(first.extra) == {"fps": "25", "note": "ä", "text": "a caption"}
    shard(tmp_path / "b.tar", {"1.mp4": video, "1.json": b'{"labels": ["run", "sit"]}', "2.mp4": video})
    import_manifest("webdataset", tmp_path / "b.tar", tmp_path / "b.csv", ImportConfig())
    several = read_manifest(tmp_path / "b.csv", labelled=False)
    assert {row.path.name: len(row.labels) for row in several.rows} == {"1.mp4": 2, "2.mp4": 0}


def test_a_range_of_shards_is_named_by_its_numbers(videos: dict[str, bytes], tmp_path: Path) -> None:
    for number in (8, 9, 10):
        shard(tmp_path / f"v-{number:03}.tar", {f"{number}.mp4": videos["a.mp4"]})
    import_manifest("webdataset", tmp_path / "v-{008..009}.tar", tmp_path / "m.csv", ImportConfig())
    names = [row.path.name for row in read_manifest(tmp_path / "m.csv", labelled=False).rows]
    assert sorted(names) == ["8.mp4", "9.mp4"]
    with pytest.raises(ManifestError, match=r"v-011\.tar cannot be read: No such file"):
        import_manifest("webdataset", tmp_path / "v-{010..011}.tar", tmp_path / "n.csv", ImportConfig())


def test_shards_that_are_no_tar_are_named_and_nothing_is_written(videos: dict[str, bytes], tmp_path: Path) -> None:
    whole = shard(tmp_path / "whole.tar", {"1.mp4": videos["a.mp4"], "2.mp4": videos["b.mkv"]})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:4000])
    (tmp_path / "zip.tar").write_bytes(gzip.compress(whole.read_bytes()))
    (tmp_path / "none").mkdir()
    for name, said in {
        "cut.tar": r"cut\.tar cannot be read as a tar archive .*cut off, damaged or compressed",
        "zip.tar": r"zip\.tar cannot be read as a tar archive",
        "none": r"none has no \.tar file: give a shard",
    }.items():
        with pytest.raises(ManifestError, match=said):
            import_manifest("webdataset", tmp_path / name, tmp_path / "m.csv", ImportConfig())
    assert not (tmp_path / "m.csv").exists()


def test_a_shard_that_was_cut_or_is_gone_later_is_an_unreadable_video(
    videos: dict[str, bytes], tmp_path: Path
) -> None:
    path = shard(tmp_path / "s.tar", {"1.mp4": videos["a.mp4"]})
    import_manifest("webdataset", path, tmp_path / "m.csv", ImportConfig())
    (row,) = read_manifest(tmp_path / "m.csv", labelled=False).rows
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(VideoReadError, match=r"1\.mp4 ends behind byte 3000, the end of its archive: the archive is"):
        open_reader(row.source)
    path.unlink()
    with pytest.raises(VideoReadError, match=r"s\.tar cannot be opened: no such file"):
        open_reader(row.source)
    with pytest.raises(ManifestError, match="names 1 missing video"):
        read_manifest(tmp_path / "m.csv", labelled=False)


@pytest.mark.slow
def test_remote_shards_are_read_in_place_trained_on_and_prepared(
    bucket: Bucket, videos: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        f"{number}.{kind}": data for number in range(4) for kind, data in (("mp4", videos["c.mp4"]), ("cls", b"7"))
    }
    path = shard(tmp_path / "s.tar", files)
    bucket.put("shards/s-000.tar", path.read_bytes())
    bucket.put("shards/notes.txt", b"x")
    for source in ("s3://videos/shards", "s3://videos/shards/s-{000..000}.tar"):
        assert main(["data", "import", "webdataset", source, str(tmp_path / "m.csv"), "--overwrite"]) == 0
        manifest = read_manifest(tmp_path / "m.csv", labelled=True)
        assert len(manifest.rows) == 4
    name = str(manifest.rows[1].path)
    assert name.startswith("s3://videos/shards/s-000.tar#bytes=")
    assert (read_clip(name, ORDER) == read_clip(videos["c.mp4"], ORDER)).all()
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["data", "prepare", str(tmp_path / "m.csv"), str(out), "--short_side", "16", "--workers", "1"]) == 0
    prepared = read_manifest(out / "manifest.csv", labelled=True)
    assert [prepared.relative_path(row) for row in prepared.rows] == [
        f"elsewhere/s3/videos/shards/s-000/{number}.mp4" for number in range(4)
    ]
