"""Events as what annotation tools import: ELAN, Label Studio and CVAT.

ELAN's EAF has a tier for each label, with times in milliseconds. Label Studio's tasks have predictions for a
`TimelineLabels` tag, with frames counted from 1. CVAT's video format has no events, only tracks: an event becomes a
track of a box as large as the frame, from its first frame to its last, frames counted from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from videomae.timeline.events import Event
from videomae.timeline.timeline import Timeline

EAF_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
NO_DATE = "1970-01-01T00:00:00+00:00"  # the same events give the same file
LABEL_STUDIO_CONFIG = (
    '<View><TimelineLabels name="videoLabels" toName="video">{labels}</TimelineLabels>'
    '<Video name="video" value="$video" timelineHeight="120"/></View>'
)
LINGUISTIC_TYPE = "default-lt"


def eaf_text(timeline: Timeline) -> str:
    """Return the events of a video as an ELAN document (EAF 3.0)."""
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "videomae",
            "DATE": NO_DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": EAF_SCHEMA,
        },
    )
    header = ElementTree.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    name = Path(timeline.video.path).name
    ElementTree.SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        {
            "MEDIA_URL": media_address(timeline.video.path),
            "MIME_TYPE": "video/mp4",
            "RELATIVE_MEDIA_URL": f"./{name}",
        },
    )
    events = timeline.events
    order = ElementTree.SubElement(root, "TIME_ORDER")
    for number, event in enumerate(events):
        for side, seconds in (("s", event.start_seconds), ("e", event.end_seconds)):
            slot = {"TIME_SLOT_ID": f"ts{number}{side}", "TIME_VALUE": str(round(seconds * 1000))}
            ElementTree.SubElement(order, "TIME_SLOT", slot)
    for label in dict.fromkeys(event.label for event in events):
        tier = ElementTree.SubElement(root, "TIER", {"LINGUISTIC_TYPE_REF": LINGUISTIC_TYPE, "TIER_ID": label})
        for number, event in enumerate(events):
            if event.label == label:
                outer = ElementTree.SubElement(tier, "ANNOTATION")
                slots = {"TIME_SLOT_REF1": f"ts{number}s", "TIME_SLOT_REF2": f"ts{number}e"}
                inner = ElementTree.SubElement(
                    outer, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{number}", **slots}
                )
                ElementTree.SubElement(inner, "ANNOTATION_VALUE").text = f"{label} {event.mean:.3f}"
    kind = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": LINGUISTIC_TYPE, "TIME_ALIGNABLE": "true"}
    ElementTree.SubElement(root, "LINGUISTIC_TYPE", kind)
    return _xml_text(root)


def label_studio_tasks(timelines: Sequence[Timeline]) -> list[dict[str, Any]]:
    """Return videos as Label Studio tasks, their events as predictions; see `label_studio_config`."""
    return [
        {
            "data": {"video": one.video.path},
            "predictions": [
                {
                    "model_version": one.model,
                    "result": [_label_studio_result(one, event, number) for number, event in enumerate(one.events)],
                }
            ],
        }
        for one in timelines
    ]


def label_studio_config(labels: Sequence[str]) -> str:
    """Return the labelling interface that the tasks are for."""
    tags = [ElementTree.tostring(ElementTree.Element("Label", {"value": label}), "unicode") for label in labels]
    return LABEL_STUDIO_CONFIG.format(labels="".join(tags))


def cvat_text(timeline: Timeline) -> str:
    """Return the events of a video in CVAT's format for video tasks, version 1.1."""
    video = timeline.video
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for tag, text in (("name", Path(video.path).name), ("size", str(video.num_frames)), ("mode", "interpolation")):
        ElementTree.SubElement(task, tag).text = text
    labels = ElementTree.SubElement(task, "labels")
    for name in dict.fromkeys(event.label for event in timeline.events):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "rectangle"
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(video.width)
    ElementTree.SubElement(size, "height").text = str(video.height)
    whole = {"xtl": "0.00", "ytl": "0.00", "xbr": f"{video.width:.2f}", "ybr": f"{video.height:.2f}", "z_order": "0"}
    for number, event in enumerate(timeline.events):
        track = ElementTree.SubElement(root, "track", {"id": str(number), "label": event.label, "source": "auto"})
        first, last = event_frames(timeline, event)
        marks = [(first, "0"), *([(last, "0")] if last > first else [])]
        if last + 1 < video.num_frames:
            marks.append((last + 1, "1"))
        for frame, outside in marks:
            state = {"frame": str(frame), "keyframe": "1", "outside": outside, "occluded": "0"}
            ElementTree.SubElement(track, "box", {**state, **whole})
    return _xml_text(root)


def event_frames(timeline: Timeline, event: Event) -> tuple[int, int]:
    """Return the first and the last frame of an event, counted from 0."""
    rate, count = timeline.video.frame_rate, timeline.video.num_frames
    first = min(max(round(event.start_seconds * rate), 0), count - 1)
    return first, min(max(round(event.end_seconds * rate) - 1, first), count - 1)


def media_address(path: str) -> str:
    """Return the address of a video: a path as a file:// address."""
    return path if "://" in path else f"file://{quote(str(Path(path).absolute()))}"


def _label_studio_result(timeline: Timeline, event: Event, number: int) -> dict[str, Any]:
    first, last = event_frames(timeline, event)
    return {
        "id": f"event{number}",
        "type": "timelinelabels",
        "from_name": "videoLabels",
        "to_name": "video",
        "score": round(event.mean, 6),
        "value": {"ranges": [{"start": first + 1, "end": last + 1}], "timelinelabels": [event.label]},
    }


def _xml_text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'
