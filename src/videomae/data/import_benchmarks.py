"""Importers of the annotation files that come with public data sets of actions."""

from __future__ import annotations

import re
from pathlib import Path

from videomae.data.configs import ImportConfig
from videomae.data.listed import (
    SPLIT_OF,
    Collection,
    ListedVideo,
    VideoTree,
    files_of,
    folder_of,
    read_json,
    read_lines,
    split_in_name,
)
from videomae.data.manifest_file import LABEL, SPLIT, read_table
from videomae.errors import ConfigError, ManifestError
from videomae.wording import counted

KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
HMDB51_SPLITS = {"1": "train", "2": "test"}  # 0: not used in this split
NUM_SPLITS = 3  # of UCF101 and of HMDB51


def import_kinetics(source: Path, config: ImportConfig) -> Collection:
    """Read the CSV files of Kinetics-400, 600 and 700: label, youtube_id, time_start, time_end, split.

    The video of a row is `<youtube_id>_<start>_<end>.mp4` with six digits for the seconds, anywhere in the tree. The
    clips of one YouTube video are a group. The times are those of the clip in the YouTube video, so they are carried
    along and are not start and end.
    """
    tree = VideoTree(config.videos or folder_of(source))
    videos = []
    for path in files_of(source, "*.csv"):
        table = read_table(path)
        for name in KINETICS_COLUMNS:
            if name not in table.columns:
                raise ManifestError(
                    f"{path} has no column {name}: Kinetics has label,youtube_id,time_start,time_end,split"
                )
        for row in table.rows:
            values = row.values
            times = [values[name] for name in KINETICS_COLUMNS[1:]]
            try:
                start, end = (f"{int(float(time)):06d}" for time in times)
            except ValueError:
                raise ManifestError(f"{table.place(row)} has the times {times}: they are seconds") from None
            word, label = values.get(SPLIT, ""), values.get(LABEL, "")
            split = SPLIT_OF.get(word.lower()) if word else split_in_name(path)
            if split is None:
                raise ManifestError(f"{table.place(row)} has the split {word!r}: it is train, validate or test")
            stem = f"{values['youtube_id']}_{start}_{end}"
            video = tree.find(stem, suffix=".mp4", hints=(label, word, split))
            extra = tuple((name, values[name]) for name in table.columns if name not in (LABEL, SPLIT))
            videos.append(ListedVideo(video, (label,) if label else (), values["youtube_id"], split, extra))
    return Collection(videos)


def import_ssv2(source: Path, config: ImportConfig) -> Collection:
    """Read the JSON files of Something-Something V2: one of train, validation and test, or the folder of all.

    The label of a row is its template without brackets. The classes are those of the file of labels: `config.labels`,
    else the one beside the source whose name ends in `labels.json`. The video of a row is `<id>.webm` in the tree.
    """
    folder = folder_of(source)
    beside = sorted(folder.glob("*labels.json"))
    labels_file = config.labels or (beside[0] if beside else None)
    if labels_file is None:
        raise ManifestError(f"{folder} has no *labels.json: give the labels of Something-Something with --labels")
    ids = read_json(labels_file)
    if not isinstance(ids, dict) or not all(str(number).isdigit() for number in ids.values()):
        raise ManifestError(f"{labels_file} is no file of labels: it has a number for each label")
    classes = tuple(sorted(ids, key=lambda name: int(ids[name])))
    files = [path for path in files_of(source, "*.json") if source.is_file() or split_in_name(path)]
    tree = VideoTree(config.videos or folder)
    videos = []
    for path in files:
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
            raise ManifestError(f"{path} is no list of videos: Something-Something has a list of objects with an id")
        for row in rows:
            template = str(row.get("template", "")).replace("[", "").replace("]", "")
            if template and template not in ids:
                raise ManifestError(f"{path}, id {row['id']}, has the template {template!r}, not in {labels_file}")
            video = tree.find(str(row["id"]), suffix=".webm")
            extra = (("caption", str(row["label"])),) if row.get("label") else ()
            videos.append(ListedVideo(video, (template,) if template else (), "", split_in_name(path), extra))
    return Collection(videos, classes)


def import_ucf101(source: Path, config: ImportConfig) -> Collection:
    """Read a split of UCF101: trainlist01.txt, testlist01.txt and classInd.txt in one folder.

    A group is the 25th part of a class that its files name, as in `v_Archery_g01_c03.avi`.
    """
    number = _split_number(config)
    index = [line.split() for line in read_lines(_there(source, "classInd.txt")) if line.strip()]
    if not all(len(words) == 2 and words[0].isdigit() for words in index):
        raise ManifestError(f"{source / 'classInd.txt'} has a line that is no number and class name")
    classes = tuple(name for _, name in sorted((int(position), name) for position, name in index))
    tree = VideoTree(config.videos or source)
    videos = []
    for split in ("train", "test"):
        path = _there(source, f"{split}list{number:02d}.txt")
        for line in read_lines(path):
            listed = re.sub(r"\s+\d+$", "", line.strip())  # the class id stands behind the path in the training lists
            if not listed:
                continue
            label, _, name = listed.rpartition("/")
            if label not in classes:
                raise ManifestError(f"{path} has {listed}, whose class {label!r} is not in classInd.txt")
            stem, suffix = name.rpartition(".")[::2]
            group = re.sub(r"_c\d+$", "", stem.removeprefix("v_"))
            videos.append(ListedVideo(tree.find(stem, suffix=f".{suffix}", hints=(label,)), (label,), group, split))
    return Collection(videos, classes)


def import_hmdb51(source: Path, config: ImportConfig) -> Collection:
    """Read a split of HMDB51: for each class a file `<class>_test_split1.txt`, with 1 for training and 2 for test."""
    ending = f"_test_split{_split_number(config)}.txt"
    tree = VideoTree(config.videos or source)
    videos, num_unused = [], 0
    for path in files_of(source, f"*{ending}"):
        label = path.name.removesuffix(ending)
        for number, line in enumerate(read_lines(path), start=1):
            name, _, code = line.strip().rpartition(" ")
            if not line.strip() or code == "0":
                num_unused += code == "0"
                continue
            if code not in HMDB51_SPLITS or not name.strip():
                raise ManifestError(f"{path}, line {number}, is {line!r}: it is a file name and 0, 1 or 2")
            stem, suffix = name.strip().rpartition(".")[::2]
            video = tree.find(stem, suffix=f".{suffix}", hints=(label,))
            videos.append(ListedVideo(video, (label,), "", HMDB51_SPLITS[code]))
    notes = (
        (f"{counted(num_unused, 'video')} in neither part of split {_split_number(config)}",) if num_unused else ()
    )
    return Collection(videos, notes=notes)


def _split_number(config: ImportConfig) -> int:
    number = 1 if config.split_number is None else config.split_number
    if not 1 <= number <= NUM_SPLITS:
        raise ConfigError(f"split_number is {number}; there are the splits 1 to {NUM_SPLITS}")
    return number


def _there(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise ManifestError(f"{folder} has no {name}: give the folder of the annotation files")
    return folder / name
