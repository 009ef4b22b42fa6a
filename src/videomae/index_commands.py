"""The subcommands on features of footage: one function each, see `cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from videomae.command_options import (
    MODEL_HELP,
    add_clip,
    add_device,
    add_model,
    add_videos,
    command_parser,
    parsed,
    parsed_with_model,
    print_table,
    run_part,
)

EXIT_FOUND = 1
EXIT_SOME_FAILED = 2


def features(arguments: list[str]) -> int:
    """Compute feature vectors of videos and write them to one file: safetensors, or a table in Parquet or npz."""
    from videomae.engine.configs import InferencePrecision, JobEngine
    from videomae.inference.configs import MIN_COSINE, Pooling

    parser = command_parser("features", features)
    add_model(parser)
    add_videos(parser, model_first=True)
    parser.add_argument("--out", type=Path, required=True, help="the file to write: .safetensors, .parquet or .npz")
    parser.add_argument(
        "--pool", type=Pooling, default="clip", help="one vector for each clip (attention: weighted), frame, ..."
    )
    parser.add_argument("--window", type=float, help="seconds of a window over the video; default: the model's own")
    parser.add_argument("--step", type=float, help="seconds from window to window; default: half a window")
    parser.add_argument("--step_frames", type=int, help="cover the whole video with clips this many frames apart")
    parser.add_argument(
        "--precision", type=InferencePrecision, default="fp32", help="auto: bf16 where the hardware has it; or int8"
    )
    parser.add_argument(
        "--min_cosine",
        type=float,
        default=MIN_COSINE,
        help="of int8 to fp32 in some windows without their mean, else an error",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="clips in one forward pass, of any videos")
    parser.add_argument(
        "--engine", type=JobEngine, default="local", help="ray: on a Ray cluster that sees the same disks; for tables"
    )
    parser.add_argument(
        "--workers", type=int | None, help="threads that decode, for tables; default: at most 4; on Ray: processors"
    )
    parser.add_argument("--shard", type=str | None, help="i/n: every n-th video only, i from 0 to n - 1; for tables")
    parser.add_argument("--resume", action="store_true", help="go on with the table, or add videos to it")
    add_clip(parser)
    add_device(parser)
    options, model = parsed_with_model(parser, arguments)
    if options.out.suffix == ".safetensors":
        return _one_file(model, options)

    from videomae.collection.prepare import parse_shard
    from videomae.inference.feature_job import write_feature_table
    from videomae.inference.window_choice import WindowChoice

    result = write_feature_table(
        model,
        options.videos,
        options.out,
        pooling=options.pool,
        windows=WindowChoice(options.step_frames, options.window, options.step),
        clip=options.clip,
        device=options.device,
        precision=options.precision,
        min_cosine=options.min_cosine,
        batch_size=options.batch_size,
        shard=parse_shard(options.shard),
        resume=options.resume,
        engine=options.engine,
        workers=options.workers,
        told=lambda certificate: print(certificate.line()),
    )
    for bad in result.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    if result.finished:
        windows = sum(one.windows for one in result.finished)
        before = f", {result.num_before} of them before this call" if result.num_before else ""
        print(f"{result.output}: {windows} windows of {len(result.finished)} videos{before}")
    return EXIT_SOME_FAILED if result.bad else 0


def _one_file(model: str, options: Any) -> int:
    from videomae.errors import ConfigError
    from videomae.inference.features import write_features

    for name in ("shard", "resume", "workers", "engine"):
        if getattr(options, name) not in (None, False, "local"):
            raise ConfigError(
                f"--{name} is given with {options.out}: a safetensors file is written in one go; give a name that "
                "ends with .parquet, or leave the option out"
            )
    written = write_features(
        model,
        options.videos,
        options.out,
        pooling=options.pool,
        step_frames=options.step_frames,
        window_seconds=options.window,
        step_seconds=options.step,
        clip=options.clip,
        device=options.device,
        precision=options.precision,
        min_cosine=options.min_cosine,
        batch_size=options.batch_size,
        told=lambda certificate: print(certificate.line()),
    )
    for bad in written.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    for path, shape in written.shapes:
        print(f"{path}: {list(shape)}")
    return EXIT_SOME_FAILED if written.bad else 0


def search(arguments: list[str]) -> int:
    """Find the places in indexed footage that are most like a clip."""
    from videomae.engine.configs import DeviceName

    parser = command_parser("search", search)
    parser.add_argument("index", type=Path, nargs="+", help="tables of videomae features --out NAME.parquet")
    parser.add_argument("--like", type=Path, required=True, help="the clip, a video file")
    parser.add_argument("--start", type=float | None, help="seconds; compare only what is shown from here on")
    parser.add_argument("--end", type=float | None, help="seconds; compare only what is shown before this")
    parser.add_argument("--top_k", type=int, default=10, help="places to find")
    parser.add_argument("--model", type=str | None, help="where the index's model is; default: where it was")
    parser.add_argument("--exact", action="store_true", help="compare all rows, also of more than 100,000")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path | None, help="an .html page of thumbnails that play, or a .json file")
    parser.add_argument("--device", type=DeviceName, default="auto", help="where to compute")
    options = parsed(parser, arguments)

    from videomae.search.index import open_index
    from videomae.search.query import search_like

    _check_page(options.out)
    index = open_index(options.index, exact=options.exact)
    matches = search_like(
        index,
        options.like,
        start=options.start,
        end=options.end,
        top_k=options.top_k,
        model=options.model,
        device=options.device,
    )
    values = {"like": str(options.like), "start": options.start, "end": options.end}
    whole = {**values, "matches": [one.to_dict() for one in matches]}
    if options.out is not None and options.out.suffix == ".html":
        from videomae.report.search_page import write_search_page

        span = options.start or 0.0, options.end if options.end is not None else _seconds(options.like)
        write_search_page(options.out, matches, query=str(options.like), span=span)
    elif options.out is not None:
        _write_json(options.out, whole)
    if options.json:
        print(_json(whole))
    else:
        rows = [(f"{one.similarity:.3f}", f"{one.start:.2f}", f"{one.end:.2f}", one.path) for one in matches]
        print_table(("similarity", "start", "end", "video"), rows)
    return 0


def dedupe(arguments: list[str]) -> int:
    """Find videos that show the same: encoded again, resized, with bars, cut, at another speed."""
    parser = command_parser("dedupe", dedupe)
    parser.add_argument("videos", type=Path, nargs="+", help="video files, folders of them, manifests")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path | None, help="an .html page of the pairs, or a .json file")
    parser.add_argument("--workers", type=int | None, help="processes that read; default: one for each processor")
    options = parsed(parser, arguments)

    from videomae.search.dedupe import find_duplicate_footage

    _check_page(options.out)
    result = find_duplicate_footage(options.videos, workers=options.workers)
    for bad in result.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    if options.out is not None and options.out.suffix == ".html":
        from videomae.report.search_page import write_copies_page

        write_copies_page(options.out, result)
    elif options.out is not None:
        _write_json(options.out, result.to_dict())
    if options.json:
        print(_json(result.to_dict()))
    elif result.pairs:
        rows = [
            (f"{one.score:.2f}", f"{one.offset:+.2f}", f"{one.speed:.2f}", f"{one.overlap:.1f}", one.one, one.other)
            for one in result.pairs
        ]
        print_table(("score", "offset", "speed", "overlap", "video", "copy"), rows)
    else:
        print(f"no two of {result.num_videos} videos show the same")
    return EXIT_SOME_FAILED if result.bad else EXIT_FOUND if result.pairs else 0


def anomaly(arguments: list[str]) -> int:
    """Fit a detector on ordinary footage without labels, or score footage with it."""
    return run_part("anomaly", {"fit": _anomaly_fit, "score": _anomaly_score}, arguments, about=anomaly.__doc__)


def _anomaly_fit(arguments: list[str]) -> int:
    """Learn what is usual in ordinary footage."""
    from videomae.anomaly.configs import AnomalyConfig

    parser = command_parser("anomaly fit", _anomaly_fit)
    add_model(parser)
    add_videos(parser, model_first=True)
    parser.add_argument("--out", type=Path, required=True, help="the detector to write, .npz")
    parser.add_class_arguments(AnomalyConfig, as_group=False)
    add_clip(parser)
    add_device(parser)
    options, model = parsed_with_model(parser, arguments)

    from dataclasses import fields

    from videomae.anomaly.run import fit_anomaly

    config = AnomalyConfig(**{one.name: getattr(options, one.name) for one in fields(AnomalyConfig)})
    detector, bad = fit_anomaly(
        model, options.videos, options.out, config=config, clip=options.clip, device=options.device
    )
    for one in bad:
        print(f"error: {one.reason}", file=sys.stderr)
    print(
        f"{len(detector.calibration)} windows of {detector.num_videos} videos; unusual is a score above "
        f"{detector.threshold:.3f}, as at most {config.false_alarms:g} of ordinary windows have"
    )
    print(f"detector: {options.out}")
    return EXIT_SOME_FAILED if bad else 0


def _anomaly_score(arguments: list[str]) -> int:
    """Tell when and where footage is unusual; exit status 1 where something is."""
    parser = command_parser("anomaly score", _anomaly_score)
    parser.add_argument("detector", type=Path, help="what videomae anomaly fit wrote")
    parser.add_argument("videos", type=Path, nargs="+", help="video files, folders of them, manifests")
    parser.add_argument("--out", type=Path | None, help="curves and events: an .html page or a .json file")
    parser.add_argument("--heatmap", type=Path | None, help="of one video: a video with the error laid over it")
    parser.add_argument("--model", type=str | None, help="where the detector's model is; default: where it was")
    add_device(parser)
    options = parsed(parser, arguments)

    from videomae.anomaly.detector import load_detector
    from videomae.anomaly.run import VideoScores, score_videos
    from videomae.errors import ConfigError
    from videomae.inference.files import check_output

    _check_page(options.out)
    if options.heatmap is not None:
        check_output(options.heatmap)
    detector = load_detector(options.detector)
    results = list(score_videos(detector, options.videos, model=options.model, device=options.device))
    scored = [one for one in results if isinstance(one, VideoScores)]
    failed = [one.reason for one in results if not isinstance(one, VideoScores)]
    for reason in [*failed, *(one.fault for one in scored if one.fault)]:
        print(f"error: {reason}", file=sys.stderr)
    for video in scored:
        print(f"{video.path}: {len(video.events)} unusual moments, highest score {video.scores.score.max():.2f}")
        for event in video.events:
            print(f"  {event.start:.2f} to {event.end:.2f} s, score {event.peak:.2f}")
    if options.out is not None and options.out.suffix == ".html":
        from videomae.report.anomaly_page import write_anomaly_page

        write_anomaly_page(options.out, detector, scored)
    elif options.out is not None:
        _write_json(options.out, {"videos": [one.to_dict() for one in scored], "errors": failed})
    if options.heatmap is not None:
        from videomae.anomaly.heat_video import write_heat_video

        if len(scored) != 1:
            raise ConfigError(f"heatmap is of one video, and {len(scored)} could be scored: give one")
        write_heat_video(options.heatmap, scored[0])
    if failed:
        return EXIT_SOME_FAILED
    return EXIT_FOUND if any(one.events for one in scored) else 0


def explain(arguments: list[str]) -> int:
    """Draw where in a clip a classifier's decision comes from: attention rollout, gradients, occlusion."""
    from videomae.explain.configs import Method

    parser = command_parser("explain", explain)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("video", type=Path, help="a video, or a part of one: clip.mp4#t=3,5")
    parser.add_argument("--out", type=Path, required=True, help="the .png file to write")
    parser.add_argument("--video_out", type=Path | None, help="a video of the overlays side by side")
    parser.add_argument("--label", type=str | None, help="the class to explain; default: the most probable")
    parser.add_argument("--methods", type=Method, nargs="+", default=None, help="default: all that the model allows")
    add_device(parser)
    options = parsed(parser, arguments)

    from videomae.explain.run import explain_file

    result = explain_file(
        options.model,
        options.video,
        options.out,
        overlay_video=options.video_out,
        label=options.label,
        methods=options.methods,
        device=options.device,
    )
    if result.label is not None:
        print(f"{result.label}: {result.probability:.1%}")
    for path in (options.out, options.video_out):
        if path is not None:
            print(f"written: {path}")
    return 0


def _check_page(out: Path | None) -> None:
    from videomae.errors import ConfigError
    from videomae.inference.files import check_output

    if out is None:
        return
    if out.suffix not in (".html", ".json"):
        raise ConfigError(f"output is {str(out)!r}; its name must end with .html or .json")
    check_output(out)


def _seconds(video: Path) -> float:
    from videomae.video.opening import open_reader

    with open_reader(video) as reader:
        return float(reader.timestamps_seconds[-1])


def _json(values: Any) -> str:
    import json

    return json.dumps(values, indent=2, allow_nan=False)


def _write_json(path: Path, values: Any) -> None:
    from videomae.atomic import write_text_atomic
    from videomae.errors import RunError

    try:
        write_text_atomic(path, _json(values) + "\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}): free space") from None
