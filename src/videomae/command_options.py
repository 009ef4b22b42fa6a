"""What several subcommands of the command line share: their parsers, the options of the same name, the model to use.

As in `cli`, what is slow to import is imported after the arguments are parsed.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from videomae.engine.configs import InferencePrecision
    from videomae.inference.predictor import Predictor

EXIT_FOUND = 1  # what was looked for is there
EXIT_SOME_FAILED = 2

MODEL_HELP = "folder of a model or finished run, weights file, owner/name on the Hub, or default (the shipped model)"

VIDEOS_HELP = "video files, folders, manifests (.csv, .parquet), or URLs: s3://bucket/videos, https://host/clip.mp4"

LABELLED_HELP = "folder with one subfolder of videos per class or with labels.csv, or manifest (.csv, .parquet)"

COLLECTION_HELP = "folder of videos, of class folders or with labels.csv, manifest (.csv, .parquet), or one video"

EPILOGS = {
    "finetune": "Multi-label classification, regression, class weights, frozen blocks, LoRA and cross-validation: "
    "see docs/evaluation.md. For other losses and training loops, use the model in transformers' Trainer or a custom "
    "loop like any transformers model, and pass its folder to --init of this command or to videomae evaluate and "
    "predict: see docs/transformers.md."
}


def command_parser(name: str, function: Callable[[list[str]], int]) -> ArgumentParser:
    """Return a parser for `videomae NAME`, described by the function's docstring."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return ArgumentParser(prog=f"videomae {name}", description=function.__doc__, exit_on_error=False)


def add_model(parser: ArgumentParser) -> None:
    """Add `--model`, which may be left out; see `parsed_with_model`."""
    parser.add_argument("--model", type=str | None, default=None, help=f"{MODEL_HELP}; if omitted: default")


def add_videos(parser: ArgumentParser, *, model_first: bool = False) -> None:
    """Add the videos; with `model_first` the first of them may be the model, see `parsed_with_model`."""
    first = "; a model may precede them, instead of --model" if model_first else ""
    # As text: as a path, ./default would be default, and an address with // in it another one.
    parser.add_argument("videos", type=str, nargs="+", help=f"{VIDEOS_HELP}{first}")


def add_clip(parser: ArgumentParser) -> None:
    """Add `--clip` and its fields."""
    from videomae.video.sampling import ClipConfig

    parser.add_argument(
        "--clip", type=ClipConfig | None, default=None, help="frame sampling; default: as in the model's training"
    )


def add_source(parser: ArgumentParser) -> None:
    """Add the checkpoint of a `videomae weights` command, and what it may need besides."""
    parser.add_argument("source", type=str, help="checkpoint: file, folder, or owner/name on the Hub")
    parser.add_argument("--config", type=Path, help="config.json for files that come without one")
    parser.add_argument("--revision", type=str, help="revision on the Hub: branch, tag or commit")


def add_device(parser: ArgumentParser) -> None:
    """Add `--device`."""
    from videomae.engine.configs import DeviceName

    parser.add_argument(
        "--device", type=DeviceName, default="auto", help="auto: CUDA if available, else MPS, else CPU"
    )


def add_decoder(parser: ArgumentParser) -> None:
    """Add `--decoder`."""
    from videomae.video.decoders import DecoderName

    parser.add_argument(
        "--decoder", type=DecoderName, default="pyav", help="video decoding backend; see docs/data.md"
    )


def add_precision(parser: ArgumentParser, *, default: InferencePrecision = "auto") -> None:
    """Add `--precision` and `--backend`; `tell_rounding` then tells what int8 changes."""
    from videomae.engine.configs import Backend
    from videomae.engine.configs import InferencePrecision as Precision

    help_text = "auto: bf16 where the device supports it, else fp32; int8: CPU only, faster but less precise"
    parser.add_argument("--precision", type=Precision, default=default, help=help_text)
    help_text = "inference backend; openvino: faster on CPUs, needs videomae[openvino]"
    parser.add_argument("--backend", type=Backend, default="torch", help=help_text)


def tell_rounding(predictor: Predictor, videos: Sequence[str]) -> None:
    """Find the ranges that 8-bit integers need on some of the videos; tell on standard error what they change."""
    from videomae.inference.calibration import calibrate

    line = calibrate(predictor, videos)
    if line is not None:
        print(f"{line}; videomae evaluate measures on labelled videos what that changes", file=sys.stderr)


def add_speed(parser: ArgumentParser) -> None:
    """Add `--speed`; `chosen_predictor` then tells what it does."""
    help_text = "factor by which merging similar tokens reduces the operations of a clip; 1: no merging"
    parser.add_argument("--speed", type=float, default=1.0, help=help_text)


def chosen_predictor(options: Mapping[str, Any]) -> Predictor:
    """Load the classifier that the options name, and tell on standard error what it merges, where it does.

    Args:
        options: Values of `model`, `clip`, `device`, `precision`, `backend`, `speed` and `decoder`, as far as the
            command has them; others are ignored.

    Raises:
        WeightsError, ConfigError: As `Predictor` does.
    """
    from videomae.inference.predictor import Predictor

    names = ("clip", "device", "precision", "backend", "speed", "decoder")
    predictor = Predictor(options["model"], **{name: options[name] for name in names if name in options})
    if predictor.merging is not None:
        note = "videomae evaluate --speed measures on labelled videos what that changes and gains"
        print(f"{predictor.merging.line()}; {note}", file=sys.stderr)
    return predictor


def parsed(parser: ArgumentParser, arguments: Sequence[str]) -> Any:
    """Parse arguments.

    Raises:
        ConfigError: If they do not fit the parser.
    """
    from jsonargparse import ArgumentError

    from videomae.errors import ConfigError

    try:
        return parser.instantiate(parser.parse_args(list(arguments)))
    except ConfigError:
        raise
    except (ArgumentError, ValueError) as error:  # the latter of a config's own check, where it may be null
        raise ConfigError(_one_line(str(error))) from None


def _one_line(message: str) -> str:
    """Return what a parser says as one line; of a value that may be null, what is wrong with it alone."""
    tried = re.findall(r"^ *- (.+)$", message, flags=re.MULTILINE) if "Union subtypes" in message else []
    said = [text for text in tried if not text.startswith("Expected a ")]
    if said:
        return " ".join(said[0].split())
    name, value = re.search(r'Parser key "([^"]+)"', message), re.search(r"Given value: (.+)", message)
    kinds = re.findall(r"Expected a <class '(?!NoneType)(\w+)'>", message)
    if tried and name and value and kinds:
        return f"--{name[1]} is {value[1]}; it must be {' or '.join(kinds)}, or left out"
    return " ".join(message.split())


def parsed_with_model(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[Any, str]:
    """Parse arguments; returns them without the model among their videos, and the model.

    The model is that of `--model`, or else the first of the videos where that is one, or else the shipped one, which
    a line on standard error tells.

    Raises:
        ConfigError: If the arguments do not fit the parser, or one of them may be a model or videos.
    """
    options = parsed(parser, arguments)

    from videomae.inference.files import split_model

    model = options.model
    if model is None:
        model, options.videos = split_model(options.videos)
    return options, model if model is not None else told_default("--model")


def told_default(option: str) -> str:
    """Return the model to use where none is named, and tell on standard error what it is."""
    from videomae.sharing.shipped import shipped_line
    from videomae.weights.shipped import unnamed_model

    print(shipped_line(option), file=sys.stderr)
    return unnamed_model()


def recipe_and_options(name: str, kind: Any, arguments: list[str], *, about: str | None) -> tuple[Any, Any]:
    """Parse a training subcommand: every field of its recipe, and where and how to run it.

    Args:
        name: Of the subcommand.
        kind: `PretrainRecipe` or `FinetuneRecipe`.
        arguments: After the name.
        about: What it does, for `--help`.

    Returns:
        The recipe, and everything that was parsed; with `recipe_name`, of the last `--config`, None where a run is
        resumed.

    Raises:
        ConfigError: If the arguments are at fault.
    """
    from videomae.recipes.arguments import (
        check_model_option,
        chosen_recipe,
        needs_shipped_model,
        value_of,
        with_recipe_file,
        with_resume_decided,
        with_videos,
    )
    from videomae.recipes.schema import parse_recipe, recipe_parser
    from videomae.train.configs import PlanConfig

    parser = recipe_parser(kind, prog=f"videomae {name}")
    parser.usage = f"videomae {name} VIDEOS --out RUN [--config RECIPE] [OPTIONS]"  # the options fill pages
    parser.description = about
    parser.epilog = EPILOGS.get(name)
    parser.add_argument("videos", nargs="?", help="folder or manifest of the training videos; same as --data.train")
    needs_out = "--dry-run" not in arguments
    parser.add_argument(
        "--out", type=Path, required=needs_out, help="run folder, for recipe, metrics, checkpoints and model"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run in --out")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in --out")
    help_text = "like --resume if --out holds a run, else start a new run; for jobs that are restarted"
    parser.add_argument("--resume-or-start", action="store_true", help=help_text)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="report what the run would need (steps, operations, memory); train and write nothing",
    )
    parser.add_class_arguments(PlanConfig, "plan")
    given = with_recipe_file(kind, with_videos(arguments))
    given = with_resume_decided(given)
    check_model_option(given)
    before: list[str] = []
    if value_of("--config", given) is None and not {"-h", "--help"} & set(given):
        out = value_of("--out", given)
        if "--resume" not in given:
            if needs_shipped_model(kind, given):
                given = [*given, "--init", told_default("--init")]
            before, lines = chosen_recipe(kind, given)
            for line in lines:
                print(line)
        elif out is not None:
            from videomae.train.resume import saved_recipe, saved_recipe_path

            saved_recipe(kind, Path(out))  # its errors say what is wrong with the recipe of the run
            before = ["--config", str(saved_recipe_path(Path(out)))]
    recipe, options = parse_recipe(kind, parser, [*before, *given])
    file = value_of("--config", [*before, *given])
    options.recipe_name = None if file is None or options.resume else Path(file).stem
    return recipe, options


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output whose cells, such as names of files, are neither broken nor cut off."""
    from rich.cells import cell_len

    lines = [[cell.encode("utf-8", "replace").decode("utf-8") for cell in line] for line in (columns, *rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def run_part(
    name: str, parts: dict[str, Callable[[list[str]], int]], arguments: list[str], *, about: str | None
) -> int:
    """Run the part of a subcommand that the first argument names, or say which there are.

    Raises:
        ConfigError: If it names none.
    """
    first = " ".join(arguments[:1])
    if first in parts:
        return parts[first](arguments[1:])
    if first in ("-h", "--help"):
        print(f"usage: videomae {name} {{{','.join(parts)}}} ...\n\n{about}")
        return 0

    from videomae.errors import ConfigError

    raise ConfigError(f"videomae {name} needs {' or '.join(parts)}, got {first or 'nothing'}")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning once, as one line of standard error, without the file and line that raised it."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = " ".join(str(message).split())
        if text not in shown:
            shown.add(text)
            print(f"warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():  # puts back what was there
        warnings.showwarning = show
        yield
