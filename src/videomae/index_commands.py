"""The subcommands on collections of footage: one function each, see `cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from videomae.command_options import (
    EXIT_FOUND,
    EXIT_SOME_FAILED,
    MODEL_HELP,
    add_clip,
    add_decoder,
    add_device,
    add_model,
    add_precision,
    add_videos,
    command_parser,
    parsed,
    parsed_with_model,
    print_table,
)
from videomae.result_files import RESUME_HELP, check_page, check_resume, end_stopped, json_text, write_json
from videomae.wording import counted


def features(arguments: list[str]) -> int:
    """Extract feature vectors of videos into one file: safetensors, or a Parquet or npz table."""
    from videomae.engine.configs import JobEngine
    from videomae.inference.configs import MIN_COSINE, Pooling

    parser = command_parser("features", features)
    add_model(parser)
    add_videos(parser, model_first=True)
    parser.add_argument("--out", type=Path, required=True, help="file to write: .safetensors, .parquet or .npz")
    parser.add_argument(
        "--pool",
        type=Pooling,
        default="clip",
        help="one vector per clip (attention: weighted mean), frame, tubelet or token",
    )
    parser.add_argument(
        "--window",
        type=float,
        help="length in seconds of the windows over a video; default: that of the model's clips",
    )
    parser.add_argument(
        "--step",
        type=float,
        help="seconds from the start of one window to the next; default: half a window, or without --window only the "
        "middle clip",
    )
    parser.add_argument("--step_frames", type=int, help="cover the whole video with clips this many frames apart")
    add_precision(parser, default="fp32")
    parser.add_argument(
        "--min_cosine",
        type=float,
        default=MIN_COSINE,
        help="int8: lowest accepted cosine to fp32 on some windows, after subtracting their mean; error if lower",
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="clips per forward pass; a batch may span several videos"
    )
    parser.add_argument(
        "--engine",
        type=JobEngine,
        default="local",
        help="ray: run on a Ray cluster that sees the same disks; tables only",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        help="number of decoding threads (default: at most 4) or, on Ray, of parallel videos (default: one per CPU); "
        "tables only",
    )
    parser.add_argument(
        "--shard",
        type=str | None,
        help="i/n: process only every n-th video, i from 0 to n - 1; tables only",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an unfinished table, or add videos to a finished Parquet table",
    )
    add_clip(parser)
    add_decoder(parser)
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
        backend=options.backend,
        min_cosine=options.min_cosine,
        batch_size=options.batch_size,
        shard=parse_shard(options.shard),
        resume=options.resume,
        engine=options.engine,
        workers=options.workers,
        decoder=options.decoder,
        told=lambda certificate: print(certificate.line()),
    )
    for bad in result.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    if result.finished:
        windows = sum(one.windows for one in result.finished)
        before = f", {result.num_before} of them before this call" if result.num_before else ""
        print(f"{result.output}: {counted(windows, 'window')} of {counted(len(result.finished), 'video')}{before}")
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
        backend=options.backend,
        min_cosine=options.min_cosine,
        batch_size=options.batch_size,
        decoder=options.decoder,
        told=lambda certificate: print(certificate.line()),
    )
    for bad in written.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    for path, shape in written.shapes:
        print(f"{path}: {list(shape)}")
    return EXIT_SOME_FAILED if written.bad else 0


def search(arguments: list[str]) -> int:
    """Find the passages in indexed footage that are most similar to a clip."""
    from videomae.engine.configs import DeviceName

    parser = command_parser("search", search)
    parser.add_argument("index", type=Path, nargs="+", help="tables written by videomae features --out NAME.parquet")
    parser.add_argument(
        "--like", type=str, required=True, help="the clip: a video file, a part of one (clip.mp4#t=3,5), or a URL"
    )
    parser.add_argument("--start", type=float | None, help="compare the clip only from this time on, in seconds")
    parser.add_argument("--end", type=float | None, help="compare the clip only up to this time, in seconds")
    parser.add_argument("--top_k", type=int, default=10, help="number of matches to return")
    parser.add_argument(
        "--model", type=str | None, help="location of the index's model; default: as recorded in the index"
    )
    parser.add_argument("--exact", action="store_true", help="compare all rows even if there are more than 100,000")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--out", type=Path | None, help="file to write: an .html page with thumbnails that play, or .json"
    )
    parser.add_argument(
        "--device", type=DeviceName, default="auto", help="auto: CUDA if available, else MPS, else CPU"
    )
    options = parsed(parser, arguments)

    from videomae.search.index import open_index
    from videomae.search.query import search_like

    check_page(options.out)
    index = open_index(options.index, exact=options.exact)
    found = search_like(
        index,
        options.like,
        start=options.start,
        end=options.end,
        top_k=options.top_k,
        model=options.model,
        device=options.device,
    )
    if found.fault is not None:
        print(f"error: {options.like} is not whole: {found.fault}", file=sys.stderr)
    matches = found.matches
    start, end = found.span
    whole: dict[str, Any] = {"like": found.path, "start": start, "end": end, "fault": found.fault}
    whole["unfinished"] = list(index.unfinished)
    whole["matches"] = [one.to_dict() for one in matches]
    if options.out is not None and options.out.suffix == ".html":
        from videomae.report.search_page import write_search_page

        write_search_page(options.out, matches, query=found.path, span=found.span, unfinished=index.unfinished)
    elif options.out is not None:
        write_json(options.out, whole)
    if options.json:
        print(json_text(whole))
    else:
        rows = [(f"{one.similarity:.3f}", f"{one.start:.2f}", f"{one.end:.2f}", one.path) for one in matches]
        print_table(("similarity", "start", "end", "video"), rows)
    return EXIT_SOME_FAILED if found.fault is not None else 0


def dedupe(arguments: list[str]) -> int:
    """Find videos that show the same content, even re-encoded, resized, letterboxed, cut or at another speed."""
    parser = command_parser("dedupe", dedupe)
    add_videos(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path | None, help="file to write: an .html page with the pairs, or .json")
    parser.add_argument("--workers", type=int | None, help="number of decoding processes; default: one per CPU")
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    options = parsed(parser, arguments)

    from videomae.inference.kept_rows import remove_kept
    from videomae.search.dedupe import find_duplicate_footage

    check_page(options.out)
    check_resume(options)
    result = find_duplicate_footage(
        options.videos, workers=options.workers, output=options.out, resume=options.resume
    )
    for bad in result.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    if options.out is not None and options.out.suffix == ".html":
        from videomae.report.search_page import write_copies_page

        write_copies_page(options.out, result)
    elif options.out is not None:
        write_json(options.out, result.to_dict())
    if options.json:
        print(json_text(result.to_dict()))
    elif result.pairs:
        rows = [
            (f"{one.score:.2f}", f"{one.offset:+.2f}", f"{one.speed:.2f}", f"{one.overlap:.1f}", one.one, one.other)
            for one in result.pairs
        ]
        print_table(("score", "offset", "speed", "overlap", "video", "copy"), rows)
        if num_still := sum(one.is_still for one in result.pairs):
            print(
                f"in {counted(num_still, 'pair')} at the end, nothing moves: copies, or recordings of one view",
                file=sys.stderr,
            )
    else:
        print(f"no two of {result.num_videos} videos show the same")
    if result.is_stopped:
        end_stopped(options.out)
    remove_kept(options.out)
    return EXIT_SOME_FAILED if result.bad else EXIT_FOUND if result.pairs else 0


def explain(arguments: list[str]) -> int:
    """Draw which parts of a clip a classifier's decision is based on: attention rollout, gradients, occlusion."""
    from videomae.explain.configs import Method

    parser = command_parser("explain", explain)
    parser.add_argument("model", help=MODEL_HELP)
    add_videos(parser)
    for_each = "with {video} in the name, one file per video"
    parser.add_argument("--out", type=str, required=True, help=f".png file to write; {for_each}")
    parser.add_argument(
        "--video_out", type=str | None, help=f"video file to write, with the overlays side by side; {for_each}"
    )
    parser.add_argument("--label", type=str | None, help="class to explain; default: the most probable one")
    parser.add_argument(
        "--methods", type=Method, nargs="+", default=None, help="maps to draw; default: all that the model supports"
    )
    add_device(parser)
    options = parsed(parser, arguments)

    from videomae.data.datasets import BadVideo
    from videomae.explain.run import explain_files

    failed = []
    for done in explain_files(
        options.model,
        options.videos,
        options.out,
        overlay_video=options.video_out,
        label=options.label,
        methods=options.methods,
        device=options.device,
    ):
        if isinstance(done, BadVideo):
            failed.append(done.reason)
            print(f"error: {done.reason}", file=sys.stderr)
            continue
        if done.explanation.fault is not None:
            failed.append(done.explanation.fault)
            print(f"error: {done.explanation.path} is not whole: {done.explanation.fault}", file=sys.stderr)
        if done.explanation.label is not None:
            print(f"{done.explanation.path}: {done.explanation.label}, {done.explanation.probability:.1%}")
        for path in done.files:
            print(f"written: {path}")
    return EXIT_SOME_FAILED if failed else 0
