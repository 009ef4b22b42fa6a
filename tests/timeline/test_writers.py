"""The files of a timeline, read back by parsers that are not ours where there are some."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from color_models import color_frames
from videomae.errors import ConfigError
from videomae.timeline.labelling_tools import label_studio_config
from videomae.timeline.timeline import Timeline
from videomae.timeline.writers import WRITERS, check_outputs, shown_labels, write_outputs
from videomae.video.opening import open_reader
from videomae.video.write import write_video


@pytest.fixture(scope="module")
def timeline(color_folder: Path, color_video: Path) -> Timeline:
    return Timeline.from_video(color_folder, str(color_video), device="cpu")


def seconds_of(text: str) -> float:
    hours, minutes, seconds = text.replace(",", ".").split(":")
    return 3600 * float(hours) + 60 * float(minutes) + float(seconds)


def written(timeline: Timeline, name: str, folder: Path) -> Path:
    (path,) = write_outputs([str(folder / name)], [timeline], WRITERS, videos=[])
    assert [one.name for one in folder.iterdir()] == [name]
    return path


def test_json_has_events_and_the_probabilities_of_each_window_to_the_bit(timeline: Timeline, tmp_path: Path) -> None:
    (video,) = json.loads(written(timeline, "a.json", tmp_path).read_text())["videos"]
    assert [(one["label"], one["start_seconds"]) for one in video["events"]] == [
        (one.label, one.start_seconds) for one in timeline.events
    ]
    assert (video["is_whole"], video["fault"]) == (True, None)
    curves = video["windows"]["probabilities"]
    assert set(curves) == {"blue", "green", "red"}
    assert curves["red"] == timeline.probabilities[:, 2].tolist()
    assert len(video["windows"]["start"]) == len(timeline.seconds)


def test_csv_and_parquet_have_the_same_row_for_each_event(timeline: Timeline, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_outputs([str(tmp_path / "a.csv"), str(tmp_path / "a.parquet")], [timeline, timeline], WRITERS, videos=[])
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == len(table) == 2 * len(timeline.events)
    for row, values in zip(rows, table, strict=True):
        assert (row["label"], row["path"]) == (values["label"], values["path"])
        assert float(row["start"]) == pytest.approx(values["start"], abs=1e-6)
        assert float(row["seconds"]) == pytest.approx(values["end"] - values["start"], abs=2e-6)
        assert values["mean"] <= values["peak"]


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_subtitles_are_read_by_ffmpeg_with_the_times_of_the_events(
    timeline: Timeline, tmp_path: Path, suffix: str
) -> None:
    import av

    path = written(timeline, f"a{suffix}", tmp_path)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    assert [float(packet.pts * packet.time_base) for packet in packets] == pytest.approx(
        [one.start_seconds for one in timeline.events], abs=1e-3
    )
    assert [float(packet.duration * packet.time_base) for packet in packets] == pytest.approx(
        [one.seconds for one in timeline.events], abs=2e-3
    )
    assert [bytes(packet).decode().split()[0] for packet in packets] == [one.label for one in timeline.events]
    times = re.findall(r"\d\d:\d\d:\d\d[.,]\d{3}", path.read_text())
    assert [seconds_of(one) for one in times[::2]] == pytest.approx(
        [one.start_seconds for one in timeline.events], abs=1e-3
    )


def test_elan_has_a_tier_for_each_label_and_every_slot_that_is_referred_to(
    timeline: Timeline, tmp_path: Path
) -> None:
    root = ElementTree.parse(written(timeline, "a.eaf", tmp_path)).getroot()
    slots = {one.get("TIME_SLOT_ID"): int(one.get("TIME_VALUE", "")) for one in root.iter("TIME_SLOT")}
    tiers = {tier.get("TIER_ID"): list(tier.iter("ALIGNABLE_ANNOTATION")) for tier in root.iter("TIER")}
    assert {name: len(found) for name, found in tiers.items()} == {"red": 2, "green": 2, "blue": 1}
    for name, found in tiers.items():
        events = [one for one in timeline.events if one.label == name]
        for one, event in zip(found, events, strict=True):
            start, end = (slots[one.get(f"TIME_SLOT_REF{k}")] / 1000 for k in (1, 2))
            assert (start, end) == pytest.approx((event.start_seconds, event.end_seconds), abs=1e-3)
    kinds = {one.get("LINGUISTIC_TYPE_ID") for one in root.iter("LINGUISTIC_TYPE")}
    assert {tier.get("LINGUISTIC_TYPE_REF") for tier in root.iter("TIER")} <= kinds
    order = [child.tag for child in root]
    assert order == ["HEADER", "TIME_ORDER", "TIER", "TIER", "TIER", "LINGUISTIC_TYPE"]


def test_cvat_has_a_track_for_each_event_that_ends_behind_its_last_frame(timeline: Timeline, tmp_path: Path) -> None:
    root = ElementTree.parse(written(timeline, "a.cvat.xml", tmp_path)).getroot()
    assert root.findtext("version") == "1.1"
    names = {one.findtext("name") for one in root.iter("label") if one.find("name") is not None}
    tracks = root.findall("track")
    assert [one.get("label") for one in tracks] == [one.label for one in timeline.events]
    assert {one.get("label") for one in tracks} <= names
    for track, event in zip(tracks, timeline.events, strict=True):
        boxes = [(int(box.get("frame", "")), box.get("outside")) for box in track]
        assert boxes[0] == (round(10 * event.start_seconds), "0")
        assert boxes[-1] in ((round(10 * event.end_seconds), "1"), (164, "0"))
        assert {box.get("xbr") for box in track} == {"32.00"}


def test_label_studio_has_frames_from_one_on_and_an_interface_for_them(timeline: Timeline, tmp_path: Path) -> None:
    (task,) = json.loads(written(timeline, "a.labelstudio.json", tmp_path).read_text())
    assert task["data"] == {"video": timeline.video.path}
    (prediction,) = task["predictions"]
    config = ElementTree.fromstring(label_studio_config(timeline.classes))
    control = config.find("TimelineLabels")
    assert control is not None
    assert {one.get("value") for one in control} == set(timeline.classes)
    for result, event in zip(prediction["result"], timeline.events, strict=True):
        assert result["from_name"] == control.get("name")
        assert result["value"]["timelinelabels"] == [event.label]
        (span,) = result["value"]["ranges"]
        assert span["start"] == round(10 * event.start_seconds) + 1
        assert 1 <= span["start"] <= span["end"] <= 165


def test_the_curves_that_are_shown_are_those_of_the_longest_events_first(timeline: Timeline) -> None:
    lasting = {name: sum(e.seconds for e in timeline.events if e.label == name) for name in timeline.classes}
    assert [timeline.classes[label] for label in shown_labels(timeline)] == sorted(
        lasting, key=lambda name: -lasting[name]
    )
    assert len(shown_labels(timeline, 2)) == 2


def test_names_that_cannot_be_written_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"out is '.*a\.doc'; its name must end with \.labelstudio\.json, \.json"):
        check_outputs([str(tmp_path / "a.doc")], WRITERS, num_videos=1)
    with pytest.raises(ConfigError, match=r"about one video, and there are 3: put \{video\} .* \{video\}-a\.srt"):
        check_outputs(["a.srt"], WRITERS, num_videos=3)
    with pytest.raises(ConfigError, match=r"the folder of output .*none/a\.json does not exist"):
        check_outputs([str(tmp_path / "none" / "a.json")], WRITERS, num_videos=1)
    check_outputs([str(tmp_path / "{video}.srt")], WRITERS, num_videos=3)


def test_the_annotated_video_has_the_labels_of_its_events_and_the_frames_of_the_video(
    color_folder: Path, tmp_path: Path
) -> None:
    from videomae.timeline.annotate import annotate_video, scores_at

    video = tmp_path / "v.mp4"
    write_video(video, color_frames([("red", 3.0), ("green", 3.0)], size=96), frame_rate=10.0)
    timeline = Timeline.from_video(color_folder, video, device="cpu")
    assert list(scores_at(timeline, 1.0)) == ["red"]
    assert scores_at(timeline, 1.0)["red"] > 0.9
    with open_reader(video) as reader:
        annotate_video(reader, timeline, tmp_path / "a.mp4")
        plain = reader.frames([10, 50]).astype(int)
    with open_reader(tmp_path / "a.mp4") as reader:
        assert len(reader) == 60
        assert reader.info.frame_rate == pytest.approx(10.0)
        drawn = reader.frames([10, 50]).astype(int)
    assert np.abs(drawn - plain)[:, 40:].mean() < 12
    assert np.abs(drawn - plain)[:, :30, :40].mean() > 60
