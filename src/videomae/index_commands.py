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


def features(arguments: list[str]) -> int:
    """Compute feature vectors of videos and write them to one file: safetensors, or a table in Parquet or npz."""
    from videomae.engine.configs import JobEngine
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
    add_precision(parser, default="fp32")
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
    """Find the places in indexed footage that are most like a clip."""
    from videomae.engine.configs import DeviceName

    parser = command_parser("search", search)
    parser.add_argument("index", type=Path, nargs="+", help="tables of videomae features --out NAME.parquet")
    parser.add_argument("--like", type=str, required=True, help="the clip: a video file, a part of one, an address")
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
    """Find videos that show the same: encoded again, resized, with bars, cut, at another speed."""
    parser = command_parser("dedupe", dedupe)
    add_videos(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path | None, help="an .html page of the pairs, or a .json file")
    parser.add_argument("--workers", type=int | None, help="processes that read; default: one for each processor")
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
    else:
        print(f"no two of {result.num_videos} videos show the same")
    if result.is_stopped:
        end_stopped(options.out)
    remove_kept(options.out)
    return EXIT_SOME_FAILED if result.bad else EXIT_FOUND if result.pairs else 0


def explain(arguments: list[str]) -> int:
    """Draw where in a clip a classifier's decision comes from: attention rollout, gradients, occlusion."""
    from videomae.explain.configs import Method

    parser = command_parser("explain", explain)
    parser.add_argument("model", help=MODEL_HELP)
    add_videos(parser)
    for_each = "with {video} in the name one for each video"
    parser.add_argument("--out", type=str, required=True, help=f"the .png file to write; {for_each}")
    parser.add_argument("--video_out", type=str | None, help=f"a video of the overlays side by side; {for_each}")
    parser.add_argument("--label", type=str | None, help="the class to explain; default: the most probable")
    parser.add_argument("--methods", type=Method, nargs="+", default=None, help="default: all that the model allows")
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
