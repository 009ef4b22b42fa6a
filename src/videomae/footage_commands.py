"""The subcommands for long videos and live streams: one subcommand is one function below, see `cli`."""

from __future__ import annotations

import sys
from pathlib import Path

from videomae.command_options import (
    MODEL_HELP,
    add_clip,
    add_decoder,
    add_device,
    add_precision,
    add_speed,
    add_videos,
    chosen_predictor,
    command_parser,
    parsed,
    tell_rounding,
)

EXIT_BAD_VIDEO = 2
MAX_FILES = 12  # named at the end; with {video} in a name there may be thousands


def timeline(arguments: list[str]) -> int:
    """Report what happens and when in videos of any length: class probabilities over time and the events in them."""
    from videomae.timeline.configs import TimelineConfig

    parser = command_parser("timeline", timeline)
    parser.add_argument("model", help=MODEL_HELP)
    add_videos(parser)
    parser.add_argument(
        "--out",
        nargs="+",
        required=True,
        help="files to write: .json, .csv, .parquet, .html, .srt, .vtt, .eaf (ELAN), .labelstudio.json, .cvat.xml; "
        "with {video} in the name, one file per video",
    )
    parser.add_class_arguments(TimelineConfig, as_group=False)
    parser.add_argument("--labels", nargs="+", default=None, help="classes to look for; default: all")
    parser.add_argument(
        "--annotate",
        type=str | None,
        help="video file to write, with the labels drawn into it; of several, with {video} in the name",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue a stopped run from what it left next to --out"
    )
    add_precision(parser)
    add_clip(parser)
    add_decoder(parser)
    add_device(parser)
    add_speed(parser)
    options = vars(parsed(parser, arguments))

    from videomae.inference.files import PLACEHOLDER, list_inputs
    from videomae.report.timeline_page import write_timeline_page
    from videomae.timeline.annotate import check_annotated
    from videomae.timeline.kept import kept_scores
    from videomae.timeline.run import run_timelines
    from videomae.timeline.scan_progress import ScanProgress
    from videomae.timeline.writers import WRITERS, check_outputs, write_outputs
    from videomae.wording import counted

    writers = {**WRITERS, ".html": write_timeline_page}
    names, videos, annotated = options["out"], options["videos"], options["annotate"]
    num_videos = sum(1 for _ in list_inputs(videos))
    check_outputs(names, writers, num_videos=num_videos)
    if annotated is not None:
        check_annotated(annotated, num_videos=num_videos)
    config = TimelineConfig(**{name: options[name] for name in TimelineConfig.__dataclass_fields__})
    predictor = chosen_predictor(options)
    tell_rounding(predictor, videos)
    kept = kept_scores(Path(names[0].replace(PLACEHOLDER, "video")), predictor, config, resume=options["resume"])
    with ScanProgress(num_videos) as progress:
        done = run_timelines(
            predictor,
            videos,
            kept,
            config=config,
            labels=options["labels"],
            with_strip=any(name.endswith(".html") for name in names),
            annotated=annotated,
            progress=progress,
        )
    files = write_outputs(names, done.timelines, writers, videos=done.videos) if done.timelines else []
    for bad in done.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    for one in done.timelines:
        if one.fault is not None:
            print(f"error: {one.video.path} is not whole: {one.fault}", file=sys.stderr)
        print(f"{one.video.path}: {counted(len(one.events), 'event')} in {counted(len(one.seconds), 'window')}")
    print(progress.summary(), file=sys.stderr)
    if files:
        more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
        print(f"files: {', '.join(map(str, files[:MAX_FILES]))}{more}")
    if done.is_stopped:
        print(f"stopped: what is done has been written; --resume continues, from {kept.folder}", file=sys.stderr)
        raise KeyboardInterrupt
    kept.remove()
    return EXIT_BAD_VIDEO if done.bad or any(one.fault for one in done.timelines) else 0


def stream(arguments: list[str]) -> int:
    """Classify a camera, stream, pipe or file played as if live; print events as JSON lines on standard output."""
    from videomae.live.configs import StreamConfig

    parser = command_parser("stream", stream)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("source", help="camera number, rtsp:// or http(s):// URL, - for standard input, or file")
    parser.add_class_arguments(StreamConfig, as_group=False)
    parser.add_argument("--labels", nargs="+", default=None, help="classes to look for; default: all")
    parser.add_argument(
        "--events", type=Path | None, help="file to append the events to, in addition to printing them"
    )
    parser.add_argument("--webhook", type=str | None, help="http(s) URL to send each event to in a POST request")
    parser.add_argument(
        "--exec", type=str | None, help="shell command to run for each event, with its JSON on standard input"
    )
    parser.add_argument("--show", action="store_true", help="show classes, speed and latency in the terminal")
    parser.add_argument(
        "--record", type=Path | None, help=".m3u8 (HLS) or .mp4 to write the newest part of the stream to"
    )
    parser.add_argument(
        "--record_seconds", type=float, default=60.0, help="seconds of the stream to keep in --record"
    )
    add_precision(parser)
    add_clip(parser)
    add_device(parser)
    add_speed(parser)
    options = vars(parsed(parser, arguments))

    from videomae.live.run import run_stream
    from videomae.live.sinks import EventSinks

    config = StreamConfig(**{name: options[name] for name in StreamConfig.__dataclass_fields__})
    predictor = chosen_predictor(options)
    with EventSinks(file=options["events"], webhook=options["webhook"], command=options["exec"]) as sinks:
        done = run_stream(
            predictor,
            options["source"],
            sinks,
            config=config,
            labels=options["labels"],
            show=options["show"],
            record=options["record"],
            record_seconds=options["record_seconds"],
        )
    print(done.summary(), file=sys.stderr)
    return 0
