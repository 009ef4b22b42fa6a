"""The command `videomae`: one subcommand is one function below.

What is slow to import is imported after the arguments are parsed, so that `--help` waits for nothing. Results go to
standard output; progress, warnings and errors to standard error. Errors that a user can cause are one line and exit
status 2; Ctrl-C is 130, SIGTERM 143.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videomae.anomaly_commands import anomaly
from videomae.command_options import (
    LABELLED_HELP,
    MODEL_HELP,
    add_clip,
    add_decoder,
    add_device,
    add_model,
    add_precision,
    add_source,
    add_speed,
    add_videos,
    chosen_predictor,
    command_parser,
    parsed,
    parsed_with_model,
    plain_warnings,
    run_part,
    tell_rounding,
    told_default,
)
from videomae.data_commands import DATA_PARTS
from videomae.evaluate_command import evaluate
from videomae.footage_commands import stream, timeline
from videomae.index_commands import dedupe, explain, features, search
from videomae.recipe_commands import RECIPES_PARTS
from videomae.run_commands import RUNS_PARTS
from videomae.training_commands import finetune, pretrain

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as of a program that the signal ends
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Subcommand:
    """What `videomae NAME` does."""

    summary: str
    """A line about it."""
    run: Callable[[list[str]], int]
    """Takes the arguments after the name, returns the exit status."""


def demo(arguments: list[str]) -> int:
    """Generate videos (or take yours), pre-train, fine-tune, compare with two controls, and write a report."""
    parser = command_parser("demo", demo)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the runs and report.html")
    parser.add_argument(
        "--data", type=Path, help="your own clips, one subfolder per class; default: synthetic videos"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--overwrite", action="store_true", help="replace existing runs in --out")
    options = parsed(parser, arguments)

    from videomae.demo import run_demo

    report = run_demo(options.out, data=options.data, seed=options.seed, overwrite=options.overwrite)
    print(f"report: {report}")
    return 0


def predict(arguments: list[str]) -> int:
    """Classify videos and print the most probable classes of each."""
    parser = command_parser("predict", predict)
    parser.add_argument("model", help=MODEL_HELP)
    add_videos(parser)
    parser.add_argument("--top_k", type=int, default=5, help="number of classes to print per video")
    parser.add_argument("--num_views", type=int, default=1, help="number of clips per video to average over")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add_clip(parser)
    add_decoder(parser)
    add_device(parser)
    add_precision(parser)
    add_speed(parser)
    options = parsed(parser, arguments)

    from videomae.inference.predict_files import predict_files

    predictor = chosen_predictor(vars(options))
    tell_rounding(predictor, options.videos)
    return predict_files(
        predictor, options.videos, top_k=options.top_k, num_views=options.num_views, json=options.json
    )


def probe(arguments: list[str]) -> int:
    """Evaluate a frozen encoder on labelled videos, and save a linear classifier on top of it."""
    from videomae.probing.configs import ProbeConfig

    parser = command_parser("probe", probe)
    add_model(parser)
    parser.add_argument("data", type=Path, help=LABELLED_HELP)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, probe.json and report.html")
    parser.add_argument("--split", type=str | None, help="use only the rows of this split")
    parser.add_argument("--cache", type=Path | None, help="folder for the features; default: features in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing probe; features are kept")
    parser.add_class_arguments(ProbeConfig, as_group=False)
    add_clip(parser)
    add_device(parser)
    options = parsed(parser, arguments)

    from videomae.probing.run import probe as measure
    from videomae.report.probe_page import write_probe_page

    result = measure(
        options.model or told_default("--model"),
        options.data,
        out=options.out,
        split=options.split,
        clip=options.clip,
        config=ProbeConfig(options.folds, options.seed, options.attentive, options.workers),
        cache=options.cache,
        device=options.device,
        overwrite=options.overwrite,
    )
    page = write_probe_page(options.out, result)
    for line in [*result.lines(), f"report: {page}", f"model: {options.out / 'model'}"]:
        print(line)
    return 0


def reconstruct(arguments: list[str]) -> int:
    """Mask patches of a video, predict them with a pre-trained model, and draw both."""
    from videomae.masking import MaskKind

    parser = command_parser("reconstruct", reconstruct)
    add_model(parser)
    add_videos(parser, model_first=True)
    parser.add_argument("--out", type=Path, required=True, help=".png file to write")
    trained = "null: as in the model's training if known, else tube masking of 90 %"
    parser.add_argument("--mask.kind", type=MaskKind | None, help=f"tube, random or frame; {trained}")
    parser.add_argument("--mask.ratio", type=float | None, help=f"fraction of tokens to hide, in (0, 1); {trained}")
    parser.add_argument("--seed", type=int, default=0, help="random seed for the mask")
    add_device(parser)
    options, model = parsed_with_model(parser, arguments)

    from videomae.errors import ConfigError
    from videomae.inference.files import check_output
    from videomae.inference.loaded import load_pretraining
    from videomae.inference.reconstruction import reconstruct_video, save_strip

    if len(options.videos) != 1:
        names = ", ".join(map(str, options.videos))
        raise ConfigError(
            f"reconstruct draws one video and is given {len(options.videos)}, {names}: leave out the others"
        )
    check_output(options.out, suffix=".png")
    loaded = load_pretraining(model, device=options.device)
    mask = replace(loaded.mask, **{name: value for name, value in vars(options.mask).items() if value is not None})
    result = reconstruct_video(loaded, options.videos[0], mask=mask, seed=options.seed)
    save_strip(result, options.out, title=Path(model).resolve().name)
    print(f"image: {options.out}")
    return 0


def weights(arguments: list[str]) -> int:
    """Inspect a checkpoint of any known layout, or convert it to another."""
    return run_part("weights", {"inspect": _inspect, "convert": _convert}, arguments, about=weights.__doc__)


def data(arguments: list[str]) -> int:
    """Generate videos; import a collection into a manifest, check it, or prepare it for fast reading."""
    return run_part("data", DATA_PARTS, arguments, about=data.__doc__)


def recipes(arguments: list[str]) -> int:
    """List the packaged recipes, or show one and explain each of its values."""
    return run_part("recipes", RECIPES_PARTS, arguments, about=recipes.__doc__)


def runs(arguments: list[str]) -> int:
    """List the training runs under a folder, or compare runs: curves on an HTML page, and differences."""
    return run_part("runs", RUNS_PARTS, arguments, about=runs.__doc__)


def _inspect(arguments: list[str]) -> int:
    """Report the layout, architecture, frame sampling and problems of a checkpoint."""
    parser = command_parser("weights inspect", _inspect)
    add_source(parser)
    options = parsed(parser, arguments)

    from rich.console import Console

    from videomae.model.base import VideoMAEPreTrainedModel
    from videomae.sharing.inspection import inspect_weights, inspection_table

    inspection = inspect_weights(
        options.source, VideoMAEPreTrainedModel, config=options.config, revision=options.revision
    )
    Console(highlight=False, emoji=False).print(inspection_table(inspection))
    return 0 if inspection.usable else EXIT_USER_ERROR


def _convert(arguments: list[str]) -> int:
    """Convert a checkpoint to another layout."""
    from videomae.sharing.configs import Target

    parser = command_parser("weights convert", _convert)
    add_source(parser)
    parser.add_argument("out", type=Path, help="folder to write, or a .pth file for the original layout")
    parser.add_argument("--to", type=Target, default="videomae", help="layout to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")
    options = parsed(parser, arguments)

    from videomae.model.config import VideoMAEConfig
    from videomae.sharing.conversion import convert_weights

    conversion = convert_weights(
        options.source,
        options.out,
        config_class=VideoMAEConfig,
        to=options.to,
        config=options.config,
        revision=options.revision,
        overwrite=options.overwrite,
    )
    print(f"{conversion.num_tensors} tensors from {conversion.layout}: {conversion.out}")
    for note in conversion.notes:
        print(note)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # Before torch is loaded: threads that wait give up their core. Spinning ones, beside a busy data worker on two
    # cores, made a training step 30 times slower (docs/performance.md, "Threads").
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else EXIT_USER_ERROR
    if arguments[0] == "--version":
        from videomae import __version__

        print(__version__)
        return 0
    subcommand = SUBCOMMANDS.get(arguments[0])
    if subcommand is None:
        close = difflib.get_close_matches(arguments[0], SUBCOMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(SUBCOMMANDS)}"
        return _fail(f"unknown subcommand {arguments[0]!r}: {hint}")

    from videomae.errors import VideoMAEError

    try:
        with plain_warnings():
            status = subcommand.run(arguments[1:])
        sys.stdout.flush()  # here, where it may fail
        return status
    except VideoMAEError as error:
        return _fail(" ".join(str(error).split()))
    except BrokenPipeError:  # such as of `videomae recipes list | head`: what it printed was enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes at exit
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_status", EXIT_INTERRUPTED)


SUBCOMMANDS: dict[str, Subcommand] = {
    "demo": Subcommand("generate videos, pre-train, fine-tune, compare and write a report, in minutes", demo),
    "pretrain": Subcommand("pre-train on a folder of unlabelled videos", pretrain),
    "finetune": Subcommand("fine-tune a classifier on labelled videos, one folder per class", finetune),
    "evaluate": Subcommand("evaluate a classifier on labelled videos, one folder per class", evaluate),
    "predict": Subcommand("classify videos", predict),
    "probe": Subcommand("evaluate a frozen encoder on labelled videos and save a linear classifier on top", probe),
    "features": Subcommand("extract feature vectors of videos into one file", features),
    "search": Subcommand("find the parts of indexed footage that are most similar to a clip", search),
    "dedupe": Subcommand("find videos that show the same content, even cut, resized or at another speed", dedupe),
    "anomaly": Subcommand("detect what is unusual, given ordinary footage", anomaly),
    "timeline": Subcommand("find what happens when in videos of any length: events, curves, an HTML page", timeline),
    "stream": Subcommand("classify a camera, a stream, a pipe, or a file played as if live", stream),
    "runs": Subcommand("list training runs or compare them: curves on an HTML page, differences", runs),
    "recipes": Subcommand("list and explain the packaged recipes", recipes),
    "data": Subcommand("generate videos; import, check or prepare a collection", data),
    "weights": Subcommand("inspect a checkpoint of any known layout, or convert it to another", weights),
    "explain": Subcommand("draw maps of where in a clip a classifier's decision comes from", explain),
    "reconstruct": Subcommand("draw what a pre-trained model predicts for masked patches", reconstruct),
}


def _overview() -> str:
    width = max(map(len, SUBCOMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {one.summary}" for name, one in SUBCOMMANDS.items())
    return (
        "usage: videomae SUBCOMMAND [OPTIONS]\n\n"
        "Masked-autoencoder pre-training, fine-tuning, evaluation and inference for video transformers.\n\n"
        f"{rows}\n\nvideomae SUBCOMMAND --help lists its options; videomae --version prints the version."
    )


def _fail(message: str) -> int:
    print(f"videomae: error: {message}", file=sys.stderr)
    return EXIT_USER_ERROR
