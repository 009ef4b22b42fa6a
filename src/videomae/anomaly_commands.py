"""`videomae anomaly fit` and `videomae anomaly score`, see `cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from videomae.command_options import (
    EXIT_FOUND,
    EXIT_SOME_FAILED,
    add_clip,
    add_device,
    add_model,
    add_videos,
    command_parser,
    parsed,
    parsed_with_model,
    run_part,
)
from videomae.result_files import RESUME_HELP, check_page, check_resume, end_stopped, write_json
from videomae.wording import counted

if TYPE_CHECKING:
    from videomae.anomaly.run import VideoScores


def anomaly(arguments: list[str]) -> int:
    """Fit an anomaly detector on ordinary footage without labels, or score footage with it."""
    return run_part("anomaly", {"fit": _anomaly_fit, "score": _anomaly_score}, arguments, about=anomaly.__doc__)


def _anomaly_fit(arguments: list[str]) -> int:
    """Fit an anomaly detector on ordinary footage without labels."""
    from videomae.anomaly.configs import AnomalyConfig

    parser = command_parser("anomaly fit", _anomaly_fit)
    add_model(parser)
    add_videos(parser, model_first=True)
    parser.add_argument("--out", type=Path, required=True, help="detector file to write, .npz")
    parser.add_class_arguments(AnomalyConfig, as_group=False)
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    add_clip(parser)
    add_device(parser)
    options, model = parsed_with_model(parser, arguments)

    from dataclasses import fields

    from videomae.anomaly.run import fit_anomaly

    config = AnomalyConfig(**{one.name: getattr(options, one.name) for one in fields(AnomalyConfig)})
    detector, bad = fit_anomaly(
        model,
        options.videos,
        options.out,
        config=config,
        clip=options.clip,
        device=options.device,
        resume=options.resume,
    )
    for one in bad:
        print(f"error: {one.reason}", file=sys.stderr)
    print(
        f"{counted(len(detector.calibration), 'window')} of {counted(detector.num_videos, 'video')}; unusual is "
        f"a score above {detector.threshold:.3f}, as at most {config.false_alarms:g} of ordinary windows have"
    )
    print(f"detector: {options.out}")
    return EXIT_SOME_FAILED if bad else 0


def _anomaly_score(arguments: list[str]) -> int:
    """Report when and where footage is unusual; the exit status is 1 if anything is."""
    parser = command_parser("anomaly score", _anomaly_score)
    parser.add_argument("detector", type=Path, help="detector file written by videomae anomaly fit")
    add_videos(parser)
    parser.add_argument(
        "--out", type=Path | None, help="file to write, with curves and events: an .html page or .json"
    )
    parser.add_argument(
        "--heatmap",
        type=str | None,
        help="video file to write, with the error overlaid; with {video} in the name, one file per video",
    )
    parser.add_argument(
        "--model", type=str | None, help="location of the detector's model; default: as recorded in the detector"
    )
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    add_device(parser)
    options = parsed(parser, arguments)

    from videomae.anomaly.detector import load_detector
    from videomae.anomaly.heat_video import check_heat_video, write_heat_videos
    from videomae.anomaly.run import VideoScores, score_videos
    from videomae.data.datasets import BadVideo
    from videomae.inference.files import list_inputs
    from videomae.inference.kept_rows import remove_kept

    check_page(options.out)
    check_resume(options)
    names = [str(one) for one in list_inputs(options.videos) if not isinstance(one, BadVideo)]
    if options.heatmap is not None:
        check_heat_video(options.heatmap, num_videos=len(names))
    detector = load_detector(options.detector)
    scored: list[VideoScores] = []
    failed: list[str] = []
    is_stopped = False
    try:
        for one in score_videos(
            detector,
            options.videos,
            model=options.model,
            device=options.device,
            output=options.out,
            resume=options.resume,
        ):
            if isinstance(one, VideoScores):
                scored.append(one)
                failed += [f"{one.path} is not whole: {one.fault}"] if one.fault else []
                _print_scores(one)
            else:
                failed.append(one.reason)
    except KeyboardInterrupt:
        is_stopped = True
    for reason in failed:
        print(f"error: {reason}", file=sys.stderr)
    if options.out is not None and options.out.suffix == ".html":
        from videomae.report.anomaly_page import write_anomaly_page

        write_anomaly_page(options.out, detector, scored)
    elif options.out is not None:
        write_json(options.out, {"videos": [one.to_dict() for one in scored], "errors": failed})
    if options.heatmap is not None and not is_stopped:
        write_heat_videos(options.heatmap, scored, videos=names)
    if is_stopped:
        end_stopped(options.out)
    remove_kept(options.out)
    if failed:
        return EXIT_SOME_FAILED
    return EXIT_FOUND if any(one.events for one in scored) else 0


def _print_scores(video: VideoScores) -> None:
    moments = "1 unusual moment" if len(video.events) == 1 else f"{len(video.events)} unusual moments"
    print(f"{video.path}: {moments}, highest score {video.scores.score.max():.2f}")
    for event in video.events:
        print(f"  {event.start:.2f} to {event.end:.2f} s, score {event.peak:.2f}")
