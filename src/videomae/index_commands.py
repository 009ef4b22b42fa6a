"""The subcommands on features of footage: one function each, see `cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from videomae.command_options import add_clip, add_device, add_model, add_videos, command_parser, parsed_with_model

EXIT_SOME_FAILED = 2


def features(arguments: list[str]) -> int:
    """Compute feature vectors of videos and write them to one file: safetensors, or a table in Parquet or npz."""
    from videomae.engine.configs import Precision
    from videomae.inference.configs import Pooling

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
    parser.add_argument("--precision", type=Precision, default="fp32", help="auto: bf16 where the hardware has it")
    parser.add_argument("--batch_size", type=int, default=8, help="clips in one forward pass, of any videos")
    parser.add_argument("--workers", type=int | None, help="threads that decode, for tables; default: at most 4")
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
        batch_size=options.batch_size,
        shard=parse_shard(options.shard),
        resume=options.resume,
        workers=options.workers,
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

    for name in ("shard", "resume", "workers"):
        if getattr(options, name):
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
        batch_size=options.batch_size,
    )
    for bad in written.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    for path, shape in written.shapes:
        print(f"{path}: {list(shape)}")
    return EXIT_SOME_FAILED if written.bad else 0
