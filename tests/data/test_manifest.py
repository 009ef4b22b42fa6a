"""Claims about scans, fingerprints and splits. Scans read names only, so the files here need not be videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.data.manifest import Manifest, VideoRow
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.data.splits import split_manifest
from videomae.errors import ConfigError, ManifestError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "datasets"


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def names(manifest: Manifest) -> list[str]:
    return [manifest.relative_path(row) for row in manifest.rows]


def numbered(num_videos: int, *, class_name: str = "a", label: int | None = 0) -> list[VideoRow]:
    return [VideoRow(Path("root", class_name, f"{i:04d}.mp4"), label) for i in range(num_videos)]


def test_unlabelled_scan_finds_videos_at_any_depth_in_path_order(tmp_path: Path) -> None:
    make_files(tmp_path, "z.mp4", "a/y.MOV", "a/b/c/x.webm", "a/b/w.gif", "A.avi")
    manifest = scan_unlabelled(tmp_path)
    assert names(manifest) == ["A.avi", "a/b/c/x.webm", "a/b/w.gif", "a/y.MOV", "z.mp4"]
    assert [row.path for row in manifest.rows] == [tmp_path / name for name in names(manifest)]
    assert {row.label for row in manifest.rows} == {None}
    assert manifest.classes == ()


def test_scan_ignores_hidden_files_hidden_folders_and_other_files(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.mp4", "b/2.mp4", "LICENSE", "notes.csv", "a/notes.txt", "a/mp4", "a/.mp4")
    make_files(tmp_path, ".cache/3.mp4", "a/.hidden.mp4", "a/.git/4.mp4")
    assert names(scan_unlabelled(tmp_path)) == ["a/1.mp4", "b/2.mp4"]
    assert names(scan_labelled(tmp_path)) == ["a/1.mp4", "b/2.mp4"]


def test_scan_of_one_file_is_that_video(tmp_path: Path) -> None:
    make_files(tmp_path, "one.mkv", "two.mkv")
    manifest = scan_unlabelled(tmp_path / "one.mkv")
    assert names(manifest) == ["one.mkv"]
    assert manifest.root == tmp_path


def test_labelled_scan_numbers_classes_alphabetically_and_descends(tmp_path: Path) -> None:
    make_files(tmp_path, "walk/deep/er/2.mp4", "walk/1.mp4", "run/3.mp4", "jump high/4.mp4")
    manifest = scan_labelled(tmp_path)
    assert manifest.classes == ("jump high", "run", "walk")
    assert [(name, row.label) for name, row in zip(names(manifest), manifest.rows, strict=True)] == [
        ("jump high/4.mp4", 0),
        ("run/3.mp4", 1),
        ("walk/1.mp4", 2),
        ("walk/deep/er/2.mp4", 2),
    ]


def test_loops_of_links_end_and_linked_folders_count_once(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", "a/1.mp4", "b/2.mp4")
    (data / "a" / "up").symlink_to(data, target_is_directory=True)
    (data / "b" / "self").symlink_to(data / "b" / "self")
    elsewhere = make_files(tmp_path / "elsewhere", "3.mp4")
    (data / "c").symlink_to(elsewhere, target_is_directory=True)
    (data / "d").symlink_to(elsewhere, target_is_directory=True)
    assert names(scan_unlabelled(data)) == ["a/1.mp4", "b/2.mp4", "c/3.mp4"]


def test_a_broken_link_stays_in_to_be_reported_and_a_pipe_is_left_out(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link_to_pipe.mp4").symlink_to(tmp_path / "pipe.mp4")
    manifest = scan_unlabelled(tmp_path)
    assert names(manifest) == ["a.mp4", "gone.mp4"]
    assert len(manifest.fingerprint()) == 64


def test_a_name_that_is_not_unicode_is_listed_hashed_and_split(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    try:
        for name in (b"\xff1.mp4", b"\xfe2.mp4"):
            Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    manifest = scan_unlabelled(tmp_path)
    assert len(manifest.rows) == 2
    assert len(manifest.fingerprint()) == 64
    assert [len(part.rows) for part in split_manifest(manifest, val_fraction=0.5)] == [1, 1]


@pytest.mark.parametrize(
    ("files", "scan", "message"),
    [
        (
            [],
            scan_unlabelled,
            r"holds no video, at any depth \(known suffixes: .*\.mp4.*\): give a folder that does$",
        ),
        (["a/notes.txt"], scan_unlabelled, "holds no video, at any depth"),
        ([], scan_labelled, "holds no subfolder: make one subfolder of videos for each class$"),
        (["1.mp4"], scan_labelled, r"holds only videos, such as 1\.mp4: make one subfolder"),
        (["a/1.mp4"], scan_labelled, "has one class folder, a; .* needs at least two: add another"),
        (["a/1.mp4", "b/notes.txt"], scan_labelled, "class folder .*b holds no video .*: add videos or remove"),
        (["a/1.mp4", "b/2.mp4", "c.mp4"], scan_labelled, r"c\.mp4 lies next to the class folders, .*: move it"),
        (["train/a/1.mp4", "test/a/2.mp4"], scan_labelled, "test, train, which are parts of a data set, not classes"),
        (["Train/a/1.mp4"], scan_labelled, "subfolders Train, which are parts of a data set"),
    ],
)
def test_an_unusable_folder_is_refused_in_one_line_with_its_cure(
    tmp_path: Path, files: list[str], scan: Callable[[Path], Manifest], message: str
) -> None:
    make_files(tmp_path, *files)
    with pytest.raises(ManifestError, match=message) as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_path_and_a_wrong_kind_of_file_are_refused(tmp_path: Path) -> None:
    make_files(tmp_path, "list.txt", "one.mp4")
    for scan in (scan_unlabelled, scan_labelled):
        with pytest.raises(ManifestError, match="nowhere does not exist: give the path of a folder of videos"):
            scan(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"list\.txt is not taken for a video, its suffix is none of .*\.mp4"):
        scan_unlabelled(tmp_path / "list.txt")
    with pytest.raises(ManifestError, match=r"one\.mp4 is a file: give the folder that has one subfolder"):
        scan_labelled(tmp_path / "one.mp4")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(ManifestError, match=r"b cannot be listed \(Permission denied\): make it readable"):
            scan_unlabelled(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_fingerprint_is_that_of_the_contents_wherever_they_lie(tmp_path: Path) -> None:
    first = make_files(tmp_path / "first", "a/1.mp4", "b/2.mp4")
    second = make_files(tmp_path / "else" / "where", "a/1.mp4", "b/2.mp4")
    assert scan_labelled(first).fingerprint() == scan_labelled(second).fingerprint()


@pytest.mark.parametrize("change", ["add", "remove", "rename", "resize", "relabel"])
def test_fingerprint_changes_with_every_change(tmp_path: Path, change: str) -> None:
    make_files(tmp_path, "a/1.mp4", "b/2.mp4", "b/3.mp4")
    before = scan_labelled(tmp_path).fingerprint()
    match change:
        case "add":
            make_files(tmp_path, "b/4.mp4")
        case "remove":
            (tmp_path / "b/3.mp4").unlink()
        case "rename":
            (tmp_path / "b/3.mp4").rename(tmp_path / "b/5.mp4")
        case "resize":
            (tmp_path / "b/3.mp4").write_bytes(b"longer than before")
        case "relabel":  # a class in front of b: the paths of the others stay, their labels move
            make_files(tmp_path, "aa/4.mp4")
            after = scan_labelled(tmp_path)
            kept = Manifest(tmp_path, tuple(r for r in after.rows if r.path.parent.name != "aa"), after.classes)
            assert kept.fingerprint() != before
            return
    assert scan_labelled(tmp_path).fingerprint() != before


def test_split_is_a_partition_that_keeps_order_labels_and_classes() -> None:
    rows = (*numbered(30), *numbered(30, class_name="b", label=1))
    train, val = split_manifest(Manifest(Path("root"), rows, ("a", "b")), val_fraction=0.25)
    assert sorted(train.rows + val.rows, key=lambda row: row.path) == list(rows)
    assert [row for row in rows if row in set(val.rows)] == list(val.rows)
    assert train.classes == val.classes == ("a", "b")
    assert train.root == val.root == Path("root")


def test_adding_videos_never_moves_another() -> None:
    before = Manifest(Path("root"), tuple(numbered(200)), ("a",))
    after = Manifest(Path("root"), tuple(numbered(300)), ("a",))
    for fraction in (0.1, 0.5, 0.9):
        train_before, val_before = split_manifest(before, val_fraction=fraction)
        train_after, val_after = split_manifest(after, val_fraction=fraction)
        assert set(train_before.rows) <= set(train_after.rows)
        assert set(val_before.rows) <= set(val_after.rows)
        assert len(val_after.rows) > len(val_before.rows)


def test_split_does_not_depend_on_where_the_data_lie_or_on_how_accents_are_spelled() -> None:
    def sides(root: str, accent: str) -> list[str]:
        rows = tuple(VideoRow(Path(root, f"{accent}{i}.mp4"), None) for i in range(40))
        _, val = split_manifest(Manifest(Path(root), rows, ()), val_fraction=0.3)
        return [row.path.stem[len(accent) :] for row in val.rows]

    assert sides("here", "\u00e9") == sides("there/deep", "e\u0301")
    assert sides("here", "\u00e9") != sides("here", "e")


def test_split_is_the_same_in_every_version() -> None:
    _, val = split_manifest(Manifest(Path("root"), tuple(numbered(20)), ("a",)), val_fraction=0.3)
    assert [row.path.stem for row in val.rows] == ["0003", "0005", "0010", "0011", "0012", "0017"]


def test_split_meets_the_fraction_on_average() -> None:
    manifest = Manifest(Path("root"), tuple(numbered(2000)), ("a",))
    _, val = split_manifest(manifest, val_fraction=0.2)
    assert abs(len(val.rows) - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5  # four standard deviations


def test_every_class_of_two_is_on_both_sides_and_a_class_of_one_is_for_training() -> None:
    for fraction in (0.001, 0.999):
        rows = (*numbered(1), *numbered(2, class_name="b", label=1), *numbered(9, class_name="c", label=2))
        train, val = split_manifest(Manifest(Path("root"), rows, ("a", "b", "c")), val_fraction=fraction)
        assert {row.label for row in train.rows} == {0, 1, 2}
        assert {row.label for row in val.rows} == {1, 2}


def test_an_impossible_split_is_refused() -> None:
    manifest = Manifest(Path("root"), tuple(numbered(1)), ("a",))
    with pytest.raises(ManifestError, match="root has no class with two videos, so none is left for validation"):
        split_manifest(manifest, val_fraction=0.5)
    for fraction, cure in ((20.0, ": did you mean 0.2\\?$"), (0.0, "$"), (1.0, "$"), (-0.5, "$")):
        with pytest.raises(ConfigError, match=r"val_fraction is .*; it is a fraction in \(0, 1\)" + cure):
            split_manifest(manifest, val_fraction=fraction)


def test_real_data_sets_are_read_past_their_licence_and_label_files() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    fight, drone = scan_labelled(SHARED / "fight"), scan_labelled(SHARED / "drone_infrared")
    assert (len(fight.rows), fight.classes) == (300, ("fight", "noFight"))
    assert (len(drone.rows), drone.classes) == (365, ("airplane", "bird", "drone", "helicopter"))
    assert {path.suffix for path in (SHARED / "fight").iterdir() if path.is_file()} >= {".csv"}


def test_a_subset_of_the_classes_may_be_one_and_have_empty_folders(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.mp4", "b/notes.txt")
    manifest = scan_labelled(tmp_path, subset=True)
    assert (manifest.classes, [row.label for row in manifest.rows]) == (("a", "b"), [0])
    make_files(tmp_path / "one", "a/1.mp4")
    assert scan_labelled(tmp_path / "one", subset=True).classes == ("a",)
    make_files(tmp_path / "none", "a/notes.txt", "b/notes.txt")
    with pytest.raises(ManifestError, match=r"the class folders of .*none hold no video .*: add videos$"):
        scan_labelled(tmp_path / "none", subset=True)


def test_folders_of_numbered_pictures_are_videos_in_folders_of_classes_too(tmp_path: Path) -> None:
    make_files(tmp_path, "a/clip 2/img_00002.jpg", "a/clip 2/img_00001.jpg", "a/clip 2/notes.txt")
    make_files(tmp_path, "b/deep/clip_1/1.png", "b/2.mp4")
    expected = ["a/clip 2", "b/2.mp4", "b/deep/clip_1"]
    assert names(scan_unlabelled(tmp_path)) == names(scan_labelled(tmp_path)) == expected
    assert [row.label for row in scan_labelled(tmp_path).rows] == [0, 1, 1]
    alone = scan_unlabelled(tmp_path / "a" / "clip 2")
    assert names(alone) == ["clip 2"]
    before = scan_labelled(tmp_path).fingerprint()
    make_files(tmp_path, "a/clip 2/img_00003.jpg")
    assert scan_labelled(tmp_path).fingerprint() != before


def test_pictures_beside_videos_or_folders_or_without_numbers_are_no_video(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.mp4", "a/thumbnail_1.jpg", "b/2.mp4", "b/deep/cover.jpg", "poster_1.jpg")
    assert names(scan_unlabelled(tmp_path)) == ["a/1.mp4", "b/2.mp4"]
    make_files(tmp_path / "none", "a/cover.jpg", "b/cover.jpg")
    with pytest.raises(ManifestError, match=r"cover\.jpg is a picture: a folder of pictures named by number, such"):
        scan_labelled(tmp_path / "none")


def test_a_folder_of_pictures_in_place_of_a_class_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "set", "clip_1/1.jpg", "clip_2/1.jpg")
    with pytest.raises(ManifestError, match="clip_1 is a folder of pictures, which is one video, not a class: make"):
        scan_labelled(tmp_path / "set")
    with pytest.raises(ManifestError, match="clip_1 is a folder of pictures, which is one video: give a folder of"):
        scan_labelled(tmp_path / "set" / "clip_1")
