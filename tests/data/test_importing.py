"""Importers: each official layout becomes a manifest that reads back; missing videos are counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videomae.cli import main
from videomae.data.configs import ImportConfig
from videomae.data.importing import IMPORTERS, import_manifest
from videomae.data.manifest import Manifest
from videomae.data.manifest_file import read_manifest
from videomae.errors import ConfigError, ManifestError


def make(folder: Path, *names: str) -> Path:
    """Write files that stand for videos; nothing here opens one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rows(manifest: Manifest) -> list[tuple[str, str | None, str | None, str | None]]:
    """Name, label, group and split of each row."""
    return [
        (row.path.name, None if row.label is None else manifest.classes[row.label], row.group, row.split)
        for row in manifest.rows
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_plain_folder_is_listed_with_paths_relative_to_the_manifest(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    make(tmp_path / "a set", "x/\u00fcber 1.mp4", "x/2.mp4", "y/img_1.jpg", "y/img_2.jpg")
    out = tmp_path / f"out{suffix}"
    lines = import_manifest("folder", tmp_path / "a set", out, ImportConfig())
    assert lines == [f"3 videos: {out}"]
    manifest = read_manifest(out, labelled=False)
    names = [manifest.relative_path(row) for row in manifest.rows]
    assert names == ["a set/x/2.mp4", "a set/x/\u00fcber 1.mp4", "a set/y"]
    elsewhere = make(tmp_path / "else", "keep") / f"out{suffix}"
    import_manifest("folder", tmp_path / "a set", elsewhere, ImportConfig())
    assert [row.path for row in read_manifest(elsewhere, labelled=False).rows] == [row.path for row in manifest.rows]
    assert read_manifest(elsewhere, labelled=False).rows[0].path.is_absolute()


def test_class_folders_are_listed_and_train_and_test_folders_are_splits(tmp_path: Path) -> None:
    make(tmp_path / "set", "train/b/1.mp4", "train/a/2.mp4", "validation/a/3.mp4", "validation/b/4.mp4")
    lines = import_manifest("classes", tmp_path / "set", tmp_path / "m.csv", ImportConfig())
    assert lines[1] == "2 classes, train 2, val 2"
    assert rows(read_manifest(tmp_path / "m.csv", labelled=True)) == [
        ("2.mp4", "a", None, "train"),
        ("1.mp4", "b", None, "train"),
        ("3.mp4", "a", None, "val"),
        ("4.mp4", "b", None, "val"),
    ]
    import_manifest("classes", tmp_path / "set" / "train", tmp_path / "n.csv", ImportConfig())
    assert [row[1:] for row in rows(read_manifest(tmp_path / "n.csv", labelled=True))] == [
        ("a", None, None),
        ("b", None, None),
    ]


def test_the_lists_of_videomae_are_read_with_and_without_labels_and_with_frames(tmp_path: Path) -> None:
    make(tmp_path / "v", "my clips/v 0.mp4", "1.mp4", "bare.mp4", "f/a/img_1.jpg", "f/a/flow_1.jpg", "f/b/img_1.jpg")
    source = write(tmp_path / "train.csv", "my clips/v 0.mp4 1\n1.mp4 0\nbare 1\n")
    config = ImportConfig(videos=tmp_path / "v")
    assert import_manifest("videomae", source, tmp_path / "m.csv", config)[0].startswith("3 videos")
    assert rows(read_manifest(tmp_path / "m.csv", labelled=True)) == [
        ("1.mp4", "0", None, None),
        ("bare.mp4", "1", None, None),
        ("v 0.mp4", "1", None, None),
    ]
    names = write(tmp_path / "names.txt", "walk\nrun\n")
    import_manifest("videomae", source, tmp_path / "n.csv", ImportConfig(videos=tmp_path / "v", labels=names))
    assert read_manifest(tmp_path / "n.csv", labelled=True).classes == ("walk", "run")
    assert (tmp_path / "n.classes.txt").read_text() == "walk\nrun\n", "the order is not that of the letters"
    source = write(tmp_path / "pre.csv", "1.mp4 0 -1\nmy clips/v 0.mp4 0 -1\n")
    import_manifest("videomae", source, tmp_path / "p.csv", config)
    assert [row[1] for row in rows(read_manifest(tmp_path / "p.csv", labelled=False))] == [None, None]
    source = write(tmp_path / "frames.csv", "f/a 12 0\nf/b 30 3\n")
    config = ImportConfig(videos=tmp_path / "v", template="img_{}.jpg")
    import_manifest("videomae", source, tmp_path / "f.csv", config)
    manifest = read_manifest(tmp_path / "f.csv", labelled=True)
    assert [manifest.relative_path(row) for row in manifest.rows] == ["v/f/a/img_{}.jpg", "v/f/b/img_{}.jpg"]
    assert [row.extra for row in manifest.rows] == [(("num_frames", "12"),), (("num_frames", "30"),)]
    assert manifest.classes == ("0", "3")
    short = write(tmp_path / "short.txt", "walk\n")
    with pytest.raises(
        ManifestError, match=r"line 2, has class id 3, and .*short\.txt names 1 classes: give the list"
    ):
        import_manifest("videomae", source, tmp_path / "x.csv", ImportConfig(videos=tmp_path / "v", labels=short))


def test_kinetics_finds_clips_by_their_names_and_groups_them_by_video(tmp_path: Path) -> None:
    videos = make(tmp_path / "k", "train/abseiling/-ab_C_000010_000020.mp4", "val/x/zz_000003_000013.mkv")
    make(tmp_path / "k", "val/x/-ab_C_000030_000040.mp4")
    head = "label,youtube_id,time_start,time_end,split\n"
    source = write(
        tmp_path / "train.csv",
        f'{head}abseiling,-ab_C,10,20,train\n"dancing, slowly",zz,3,13,validate\nabseiling,-ab_C,30,40,train\n'
        "abseiling,gone,1,11,test\n",
    )
    lines = import_manifest("kinetics", source, tmp_path / "m.csv", ImportConfig(videos=videos))
    assert lines[1] == "2 classes, 2 groups, train 2, val 1"
    assert lines[2] == f"1 of 4 videos are not there and left out, first {videos / 'gone_000001_000011.mp4'}"
    manifest = read_manifest(tmp_path / "m.csv", labelled=True)
    assert rows(manifest) == [
        ("-ab_C_000010_000020.mp4", "abseiling", "-ab_C", "train"),
        ("-ab_C_000030_000040.mp4", "abseiling", "-ab_C", "train"),
        ("zz_000003_000013.mkv", "dancing, slowly", "zz", "val"),
    ]
    assert {row.start_seconds for row in manifest.rows} == {None}, "the files are cut already"
    assert dict(manifest.rows[0].extra)["time_start"] == "10"
    write(tmp_path / "train.csv", f"{head}a,zz,3,13,dev\n")
    with pytest.raises(ManifestError, match=r"line 2, has the split 'dev': it is train, validate or test"):
        import_manifest("kinetics", source, tmp_path / "n.csv", ImportConfig(videos=videos))
    write(tmp_path / "train.csv", "label,id\na,b\n")
    with pytest.raises(ManifestError, match="has no column youtube_id: Kinetics has label,youtube_id,time_start"):
        import_manifest("kinetics", source, tmp_path / "n.csv", ImportConfig(videos=videos))


def test_something_something_has_the_labels_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    videos = make(tmp_path / "20bn", "1.webm", "2.webm", "3.webm")
    folder = tmp_path / "labels"
    labels = {"Pushing something": "1", "Approaching something with your camera": "0", "Zipping": "2"}
    write(folder / "something-something-v2-labels.json", json.dumps(labels))
    train = [
        {"id": "1", "label": "pushing a cup", "template": "Pushing [something]", "placeholders": ["a cup"]},
        {
            "id": "2",
            "label": "approaching a dog with your camera",
            "template": "Approaching [something] with your camera",
        },
    ]
    write(folder / "something-something-v2-train.json", json.dumps(train))
    write(folder / "something-something-v2-test.json", json.dumps([{"id": "3"}]))
    lines = import_manifest("ssv2", folder, tmp_path / "m.csv", ImportConfig(videos=videos))
    assert lines == [f"3 videos: {tmp_path / 'm.csv'}", "2 classes, train 2, test 1"]
    manifest = read_manifest(tmp_path / "m.csv", labelled=False)
    assert manifest.classes == ("Approaching something with your camera", "Pushing something", "Zipping")
    assert [(row.label, row.split) for row in manifest.rows] == [(1, "train"), (0, "train"), (None, "test")]
    assert manifest.rows[0].extra == (("caption", "pushing a cup"),)
    one = import_manifest(
        "ssv2", folder / "something-something-v2-train.json", tmp_path / "n.csv", ImportConfig(videos=videos)
    )
    assert one[1] == "2 classes, train 2"
    train[0]["template"] = "Flying"
    write(folder / "something-something-v2-train.json", json.dumps(train))
    with pytest.raises(ManifestError, match="id 1, has the template 'Flying', not in"):
        import_manifest("ssv2", folder, tmp_path / "x.csv", ImportConfig(videos=videos))


def test_ucf101_has_the_split_that_was_asked_for_and_its_groups(tmp_path: Path) -> None:
    names = ["Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c02.avi", "YoYo/v_YoYo_g02_c01.avi"]
    videos = make(tmp_path / "UCF-101", *names)
    folder = tmp_path / "ucfTrainTestlist"
    write(folder / "classInd.txt", "1 YoYo\r\n2 Archery\r\n")
    write(folder / "trainlist02.txt", f"{names[2]} 1\r\n")
    write(folder / "testlist02.txt", f"{names[0]}\r\n{names[1]}\r\n")
    lines = import_manifest("ucf101", folder, tmp_path / "m.csv", ImportConfig(videos=videos, split_number=2))
    assert lines[1] == "2 classes, 2 groups, train 1, test 2"
    manifest = read_manifest(tmp_path / "m.csv", labelled=True)
    assert manifest.classes == ("YoYo", "Archery")
    assert rows(manifest) == [
        ("v_Archery_g01_c01.avi", "Archery", "Archery_g01", "test"),
        ("v_Archery_g01_c02.avi", "Archery", "Archery_g01", "test"),
        ("v_YoYo_g02_c01.avi", "YoYo", "YoYo_g02", "train"),
    ]
    with pytest.raises(ManifestError, match=r"has no trainlist01\.txt: give the folder of the annotation files"):
        import_manifest("ucf101", folder, tmp_path / "n.csv", ImportConfig(videos=videos))
    with pytest.raises(ConfigError, match="split_number is 4; there are the splits 1 to 3"):
        import_manifest("ucf101", folder, tmp_path / "n.csv", ImportConfig(videos=videos, split_number=4))


def test_hmdb51_leaves_out_what_its_split_does_not_use_and_says_so(tmp_path: Path) -> None:
    videos = make(tmp_path / "hmdb", "brush_hair/a b_1.avi", "brush_hair/c.avi", "wave/d.avi", "wave/e.avi")
    folder = tmp_path / "splits"
    write(folder / "brush_hair_test_split1.txt", "a b_1.avi 1 \nc.avi 2 \n")
    write(folder / "wave_test_split1.txt", "d.avi 0 \ne.avi 1 \n")
    write(folder / "wave_test_split2.txt", "d.avi 1 \ne.avi 1 \n")
    lines = import_manifest("hmdb51", folder, tmp_path / "m.csv", ImportConfig(videos=videos))
    assert lines[1:] == ["2 classes, train 2, test 1", "1 video in neither part of split 1"]
    assert rows(read_manifest(tmp_path / "m.csv", labelled=True)) == [
        ("a b_1.avi", "brush_hair", None, "train"),
        ("c.avi", "brush_hair", None, "test"),
        ("e.avi", "wave", None, "train"),
    ]
    write(folder / "wave_test_split1.txt", "d.avi\n")
    with pytest.raises(
        ManifestError, match=r"wave_test_split1\.txt, line 1, is 'd\.avi': it is a file name and 0, 1"
    ):
        import_manifest("hmdb51", folder, tmp_path / "n.csv", ImportConfig(videos=videos))


def test_a_videofolder_is_read_from_csv_and_json_lines(tmp_path: Path) -> None:
    folder = make(tmp_path / "hf", "train/1.mp4", "validation/sub/2.mp4")
    write(folder / "train" / "metadata.csv", "file_name,label,text\n1.mp4,run,a man runs\n")
    line = {"file_name": "sub/2.mp4", "label": "walk", "text": "\u00fcber", "score": 3}
    write(folder / "validation" / "metadata.jsonl", json.dumps(line) + "\n")
    lines = import_manifest("videofolder", folder, tmp_path / "m.csv", ImportConfig())
    assert lines[1] == "2 classes, train 1, val 1"
    manifest = read_manifest(tmp_path / "m.csv", labelled=True)
    assert rows(manifest) == [("1.mp4", "run", None, "train"), ("2.mp4", "walk", None, "val")]
    assert [dict(row.extra)["text"] for row in manifest.rows] == ["a man runs", "\u00fcber"]
    write(folder / "validation" / "metadata.jsonl", '{"label": "walk"}\n')
    with pytest.raises(ManifestError, match="row 1, has no file_name, the path of the video"):
        import_manifest("videofolder", folder, tmp_path / "n.csv", ImportConfig())
    write(folder / "validation" / "metadata.jsonl", "[1]\n")
    with pytest.raises(ManifestError, match="line 1, is no JSON object: write an object a line"):
        import_manifest("videofolder", folder, tmp_path / "n.csv", ImportConfig())
    with pytest.raises(ManifestError, match="for a folder with a folder for each class use the kind classes"):
        import_manifest("videofolder", make(tmp_path / "none", "1.mp4"), tmp_path / "n.csv", ImportConfig())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_0_and_1_become_several_labels(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    make(tmp_path, "a 1.mp4", "b.mp4", "c.mp4")
    text = "path,walk,Split of old,jump,split,score\na 1.mp4,1,x,1,train,0.5\nb.mp4,0,y,1,val,1\nc.mp4,0,z,0,val,0\n"
    source = write(tmp_path / "multi.csv", text)
    out = tmp_path / f"m{suffix}"
    assert import_manifest("multilabel", source, out, ImportConfig())[1] == "2 classes, train 1, val 2"
    manifest = read_manifest(out, labelled=False)
    assert manifest.classes == ("walk", "jump")
    assert [row.labels for row in manifest.rows] == [(0, 1), (1,), ()]
    assert dict(manifest.rows[0].extra) == {"Split of old": "x", "score": "0.5"}
    with pytest.raises(ManifestError, match="has no column of 0 and 1: give one for each class"):
        import_manifest(
            "multilabel", write(tmp_path / "x.csv", "path,a\nb.mp4,yes\n"), tmp_path / "y.csv", ImportConfig()
        )
    with pytest.raises(ManifestError, match="has the class 'a;b': ; stands between labels, rename the class"):
        import_manifest(
            "multilabel", write(tmp_path / "x.csv", "path,a;b\nb.mp4,1\n"), tmp_path / "y.csv", ImportConfig()
        )


def test_missing_videos_are_counted_and_three_are_named_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "here.mp4")
    lines = "".join(f"gone {number}.mp4 0\n" for number in range(5))
    source = write(tmp_path / "list.csv", f"here.mp4 1\n{lines}")
    told = import_manifest("videomae", source, tmp_path / "m.csv", ImportConfig())[-1]
    named = ", ".join(str(tmp_path / f"gone {number}.mp4") for number in range(3))
    assert told == f"5 of 6 videos are not there and left out, first {named}"
    write(tmp_path / "list.csv", lines)
    message = r"none of the 5 videos of .*list\.csv is there, first .*gone 2\.mp4: give their folder with --videos"
    with pytest.raises(ManifestError, match=message):
        import_manifest("videomae", source, tmp_path / "n.csv", ImportConfig())
    assert not (tmp_path / "n.csv").exists()


def test_options_that_mean_nothing_and_outputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "set", "a/1.mp4", "b/2.mp4")
    with pytest.raises(
        ConfigError, match="--split_number means nothing for classes: leave it out; it is for ucf101, hm"
    ):
        import_manifest("classes", tmp_path / "set", tmp_path / "m.csv", ImportConfig(split_number=1))
    with pytest.raises(ConfigError, match=r"m\.txt must end in \.csv or \.parquet, which says how it is written"):
        import_manifest("classes", tmp_path / "set", tmp_path / "m.txt", ImportConfig())
    with pytest.raises(ConfigError, match=r"the folder of .*no/m\.csv does not exist: make it, or choose another"):
        import_manifest("classes", tmp_path / "set", tmp_path / "no" / "m.csv", ImportConfig())
    with pytest.raises(ManifestError, match="nowhere does not exist: give the folder or the file of the collection"):
        import_manifest("kinetics", tmp_path / "nowhere", tmp_path / "m.csv", ImportConfig())
    import_manifest("classes", tmp_path / "set", tmp_path / "m.csv", ImportConfig())
    with pytest.raises(ConfigError, match=r"m\.csv is there already: choose another name, or --overwrite"):
        import_manifest("classes", tmp_path / "set", tmp_path / "m.csv", ImportConfig())
    import_manifest("classes", tmp_path / "set", tmp_path / "m.csv", ImportConfig(overwrite=True))


def test_a_list_of_classes_of_a_replaced_manifest_does_not_stay(tmp_path: Path) -> None:
    make(tmp_path / "set", "a/1.mp4", "b/2.mp4")
    write(tmp_path / "m.classes.txt", "b\na\n")
    import_manifest("classes", tmp_path / "set", tmp_path / "m.csv", ImportConfig(overwrite=True))
    assert read_manifest(tmp_path / "m.csv", labelled=True).classes == ("a", "b")


def test_the_command_writes_a_manifest_and_has_a_kind_for_every_importer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "set", "a/1.mp4", "b/2.mp4")
    out = tmp_path / "m.csv"
    assert main(["data", "import", "classes", str(tmp_path / "set"), str(out)]) == 0
    assert capsys.readouterr().out == f"2 videos: {out}\n2 classes\n"
    assert out.read_text() == "path,label\nset/a/1.mp4,a\nset/b/2.mp4,b\n"
    assert main(["data", "import", "classes", str(tmp_path / "set"), str(out), "--overwrite"]) == 0
    with pytest.raises(SystemExit):
        main(["data", "import", "--help"])
    told = capsys.readouterr().out
    assert all(kind in told for kind in IMPORTERS)
    assert main(["data", "import", "folders", str(tmp_path / "set"), str(out)]) == 2
    assert "folders" in capsys.readouterr().err
