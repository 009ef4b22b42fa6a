"""The command `videomae`: one verb is one function below, and its parameters are the verb's options.

Nothing heavy is imported until a verb runs. Results go to standard output, progress and errors to standard error.
Errors that a user can cause are one line and exit status 2; Ctrl-C is 130, SIGTERM 143.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
MODEL_HELP = "folder of a model or of a finished run, weights file, or owner/name on the Hub"


@dataclass(frozen=True)
class Verb:
    """One word of the command line."""

    summary: str
    """What it does, a line."""
    run: Callable[[list[str]], int]
    """Takes the words after the verb, returns the exit status."""


def demo(words: list[str]) -> int:
    """Make videos, pre-train, fine-tune, compare with random weights, report."""
    parser = _parser("demo", demo)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for runs and report.html")
    parser.add_argument("--data", type=Path, help="your own clips, a folder for each class; default: made here")
    parser.add_argument("--seed", type=int, default=0, help="source of every random draw")
    parser.add_argument("--overwrite", action="store_true", help="replace the runs that are in --out")
    options = _parse(parser, words)

    from videomae.demo import run_demo

    report = run_demo(options.out, data=options.data, seed=options.seed, overwrite=options.overwrite)
    print(f"report: {report}")
    return 0


def pretrain(words: list[str]) -> int:
    """Pre-train on a folder of unlabelled videos."""
    from videomae.recipes.schema import PretrainRecipe
    from videomae.train.pretrain import pretrain as train

    recipe, options = _recipe_and_options("pretrain", PretrainRecipe, words)
    folder = train(recipe, out=options.out, overwrite=options.overwrite, resume=options.resume)
    print(f"model: {folder}")
    return 0


def finetune(words: list[str]) -> int:
    """Fine-tune a classifier on labelled videos, from a pre-trained encoder or from random weights."""
    from videomae.recipes.schema import FinetuneRecipe
    from videomae.train.finetune import finetune as train

    recipe, options = _recipe_and_options("finetune", FinetuneRecipe, words)
    result = train(recipe, out=options.out, overwrite=options.overwrite, resume=options.resume)
    for line in result.evaluation.summary():
        print(line)
    print(f"model: {result.model_folder}")
    return 0


def evaluate(words: list[str]) -> int:
    """Measure a classifier on labelled videos, averaging several views of each."""
    from videomae.evaluation.evaluator import evaluate_folder
    from videomae.evaluation.results import EvaluationConfig

    parser = _parser("evaluate", evaluate)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("data", type=Path, help="a folder with one folder of videos for each class")
    parser.add_class_arguments(EvaluationConfig)
    _add_clip(parser)
    _add_device(parser)
    parser.add_argument("--out", type=Path, help="JSON file for the result of every video")
    options = _parse(parser, words)
    config = EvaluationConfig(
        views=options.views, batch_size=options.batch_size, workers=options.workers, precision=options.precision
    )
    result = evaluate_folder(
        options.model, options.data, clip=options.clip, config=config, device=options.device, output=options.out
    )
    for line in result.summary():
        print(line)
    return 0


def predict(words: list[str]) -> int:
    """Classify videos: the most probable classes of each."""
    from videomae.inference.predictor import Predictor, predict_files

    parser = _parser("predict", predict)
    parser.add_argument("model", help=MODEL_HELP)
    _add_videos(parser)
    parser.add_argument("--top_k", type=int, default=5, help="classes to print for each video")
    parser.add_argument("--num_views", type=int, default=1, help="clips to average over")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    _add_clip(parser)
    _add_device(parser)
    options = _parse(parser, words)
    predictor = Predictor(options.model, clip=options.clip, device=options.device)
    return predict_files(
        predictor, options.videos, top_k=options.top_k, num_views=options.num_views, json=options.json
    )


def features(words: list[str]) -> int:
    """Compute feature vectors of videos and write them to one safetensors file."""
    from videomae.inference.features import Pooling, write_features

    parser = _parser("features", features)
    parser.add_argument("model", help=MODEL_HELP)
    _add_videos(parser)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--pool", type=Pooling, default="clip", help="one vector for each clip, frame, tubelet, token"
    )
    parser.add_argument("--step_frames", type=int, help="cover the whole video with clips this many frames apart")
    _add_clip(parser)
    _add_device(parser)
    options = _parse(parser, words)
    written = write_features(
        options.model,
        options.videos,
        options.out,
        pooling=options.pool,
        step_frames=options.step_frames,
        clip=options.clip,
        device=options.device,
    )
    for bad in written.bad:
        print(f"error: {bad.reason}", file=sys.stderr)
    for path, shape in written.shapes:
        print(f"{path}: {list(shape)}")
    return EXIT_USER_ERROR if written.bad else 0


def reconstruct(words: list[str]) -> int:
    """Hide patches of a video, let a pre-trained network predict them, and draw both."""
    from videomae.inference.reconstruction import reconstruct as draw
    from videomae.masking import MaskConfig

    parser = _parser("reconstruct", reconstruct)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("video", type=Path, help="the video file")
    parser.add_argument("--out", type=Path, required=True, help="the .png file to write")
    parser.add_class_arguments(MaskConfig, "mask", skip={"decoder_kind", "decoder_ratio"})
    parser.add_argument("--seed", type=int, default=0, help="of the mask")
    _add_device(parser)
    options = _parse(parser, words)
    draw(options.model, options.video, options.out, mask=options.mask, seed=options.seed, device=options.device)
    print(f"picture: {options.out}")
    return 0


def weights(words: list[str]) -> int:
    """Look into a checkpoint of any known layout, or write it in another."""
    if words[:1] == ["inspect"]:
        return _inspect(words[1:])
    if words[:1] == ["convert"]:
        return _convert(words[1:])
    if words[:1] in (["-h"], ["--help"]):
        print("usage: videomae weights {inspect,convert} SOURCE ...\n\n" + str(weights.__doc__))
        return 0
    return _fail(f"videomae weights needs inspect or convert, got {' '.join(words[:1]) or 'nothing'}")


def _inspect(words: list[str]) -> int:
    """Tell layout, architecture, sampling and problems of a checkpoint."""
    from rich.console import Console

    from videomae.model.base import VideoMAEPreTrainedModel
    from videomae.sharing.inspection import inspect_weights, inspection_table

    parser = _parser("weights inspect", _inspect)
    _add_source(parser)
    options = _parse(parser, words)
    inspection = inspect_weights(
        options.source, VideoMAEPreTrainedModel, config=options.config, revision=options.revision
    )
    Console(highlight=False, emoji=False).print(inspection_table(inspection))
    return 0 if inspection.usable else EXIT_USER_ERROR


def _convert(words: list[str]) -> int:
    """Write a checkpoint in another layout."""
    from videomae.model.config import VideoMAEConfig
    from videomae.sharing.conversion import Target, convert_weights

    parser = _parser("weights convert", _convert)
    _add_source(parser)
    parser.add_argument("out", type=Path, help="a folder, or for the original layout a .pth file")
    parser.add_argument("--to", type=Target, default="videomae", help="the layout to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at OUT")
    options = _parse(parser, words)
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


def _add_source(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="a file, a folder, or a name on the Hub")
    parser.add_argument("--config", type=Path, help="a config.json, for files that have none")
    parser.add_argument("--revision", type=str, help="on the Hub")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # Before torch is loaded: threads that wait give up their core. Spinning ones, beside a busy data worker on two
    # cores, made a training step 30 times slower (docs/performance.md, "Threads").
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else EXIT_USER_ERROR
    if words[0] == "--version":
        from videomae import __version__

        print(__version__)
        return 0
    verb = VERBS.get(words[0])
    if verb is None:
        close = difflib.get_close_matches(words[0], VERBS, n=1)
        cure = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(VERBS)}"
        return _fail(f"unknown verb {words[0]!r}: {cure}")

    from videomae.errors import VideoMAEError

    try:
        return verb.run(words[1:])
    except VideoMAEError as error:
        return _fail(" ".join(str(error).split()))
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_status", EXIT_INTERRUPTED)


VERBS: dict[str, Verb] = {
    "demo": Verb("make videos, pre-train, fine-tune, compare and report, in minutes", demo),
    "pretrain": Verb("pre-train on a folder of unlabelled videos", pretrain),
    "finetune": Verb("fine-tune a classifier on a folder for each class", finetune),
    "evaluate": Verb("measure a classifier on a folder for each class", evaluate),
    "predict": Verb("classify videos", predict),
    "features": Verb("feature vectors of videos, in one file", features),
    "weights": Verb("look into a checkpoint of any known layout, or convert it", weights),
    "reconstruct": Verb("picture of what a pre-trained network predicts behind its mask", reconstruct),
}


def _overview() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: videomae VERB [OPTIONS]\n\n"
        "Masked-autoencoder pre-training, fine-tuning, evaluation and use of video transformers.\n\n"
        f"{rows}\n\nvideomae VERB --help tells the options of a verb; videomae --version the version."
    )


def _fail(message: str) -> int:
    print(f"videomae: error: {message}", file=sys.stderr)
    return EXIT_USER_ERROR


def _parser(verb: str, function: Callable[[list[str]], int]) -> ArgumentParser:
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return ArgumentParser(prog=f"videomae {verb}", description=function.__doc__, exit_on_error=False)


def _add_videos(parser: ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, nargs="+", help="video files, and folders of them")


def _add_clip(parser: ArgumentParser) -> None:
    from videomae.video.sampling import ClipConfig

    parser.add_argument(
        "--clip", type=ClipConfig | None, default=None, help="frame sampling; default: as the model was trained with"
    )


def _add_device(parser: ArgumentParser) -> None:
    from videomae.engine.precision import DeviceName

    parser.add_argument("--device", type=DeviceName, default="auto", help="where to compute")


def _parse(parser: ArgumentParser, words: Sequence[str]) -> Any:
    from jsonargparse import ArgumentError

    from videomae.errors import ConfigError

    try:
        return parser.instantiate(parser.parse_args(list(words)))
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None


def _recipe_and_options(verb: str, kind: Any, words: list[str]) -> tuple[Any, Any]:
    """Parse a training verb: every field of its recipe, and where and how to run it."""
    from videomae.recipes.schema import parse_recipe, recipe_parser, recipe_path
    from videomae.train.resume import saved_recipe, saved_recipe_path

    parser = recipe_parser(kind, prog=f"videomae {verb}")
    parser.add_argument("--out", type=Path, required=True, help="run folder: recipe, metrics, checkpoints, model")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in --out")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    named = _with_recipe_file(words, lambda name: recipe_path(kind, name))
    out = _value_of("--out", words)
    if "--resume" in words and out is not None and _value_of("--config", words) is None:
        saved_recipe(kind, Path(out))  # its errors say what is wrong with the recipe of the run
        named = ["--config", str(saved_recipe_path(Path(out))), *words]
    return parse_recipe(kind, parser, named)


def _with_recipe_file(words: list[str], find: Callable[[str], str]) -> list[str]:
    """Replace the name after `--config` by the file it means."""
    replaced = list(words)
    for position, word in enumerate(words):
        if word == "--config" and position + 1 < len(words):
            replaced[position + 1] = find(words[position + 1])
        elif word.startswith("--config="):
            replaced[position] = f"--config={find(word.removeprefix('--config='))}"
    return replaced


def _value_of(option: str, words: list[str]) -> str | None:
    for position, word in enumerate(words):
        if word == option and position + 1 < len(words):
            return words[position + 1]
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None
