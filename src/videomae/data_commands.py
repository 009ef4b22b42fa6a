"""The parts of `videomae data`: one part is one function below, see `cli`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from videomae.command_options import COLLECTION_HELP, command_parser, parsed
from videomae.wording import counted

EXIT_FOUND = 1


def generate(arguments: list[str]) -> int:
    """Generate videos and write them to a folder."""
    from videomae.data.configs import GenerateConfig, GeneratedKind

    parser = command_parser("data generate", generate)
    parser.add_argument(
        "kind", type=GeneratedKind, help="procedural videos, or motion videos of eight labelled classes"
    )
    parser.add_argument("out", type=Path, help="output folder; motion videos go into one subfolder per class")
    parser.add_class_arguments(GenerateConfig)
    options = parsed(parser, arguments)

    from videomae.data.generated import generate_videos

    kind, out = vars(options).pop("kind"), vars(options).pop("out")
    print(f"{counted(generate_videos(kind, out, GenerateConfig(**vars(options))), 'video')}: {out}")
    return 0


def import_collection(arguments: list[str]) -> int:
    """Write the manifest of a collection of videos in a known format."""
    from videomae.data.configs import ImportConfig, ImportKind

    parser = command_parser("data import", import_collection)
    parser.add_argument("kind", type=ImportKind, help="format of the collection; see docs/data.md")
    parser.add_argument(
        "source",
        type=Path,
        help="folder of the collection, its annotation file, or the folder of its annotation files",
    )
    parser.add_argument("out", type=Path, help="manifest to write, .csv or .parquet")
    parser.add_class_arguments(ImportConfig, skip={"overwrite"})
    parser.add_argument("--overwrite", action="store_true", help="replace an existing manifest")
    options = vars(parsed(parser, arguments))
    kind, source, out = (options.pop(name) for name in ("kind", "source", "out"))

    from videomae.data.importing import import_manifest

    for line in import_manifest(kind, source, out, ImportConfig(**options)):
        print(line)
    return 0


def check(arguments: list[str]) -> int:
    """Decode a whole collection and report its problems; exit status 1 if there are any."""
    from videomae.collection.configs import CheckConfig

    parser = command_parser("data check", check)
    parser.add_argument("source", type=Path, help=COLLECTION_HELP)
    parser.add_argument(
        "--out", type=Path, default=Path("check"), help="folder for check.json, check.html and skip.txt"
    )
    parser.add_argument(
        "--against",
        type=Path,
        help="collection that should have no video in common with SOURCE, such as the test videos",
    )
    parser.add_class_arguments(CheckConfig)
    options = vars(parsed(parser, arguments))
    source, out, against = (options.pop(name) for name in ("source", "out", "against"))

    from rich.console import Console

    from videomae.collection.check import check_collection, write_check
    from videomae.collection.summary import check_lines, check_tables
    from videomae.report.check_page import write_check_page

    result = check_collection(source, against=against, config=CheckConfig(**options))
    files = [*write_check(result, out), write_check_page(out, result)]
    console = Console(highlight=False, emoji=False, markup=False)
    for table in check_tables(result):
        console.print(table)
        print()
    for line in [*check_lines(result), f"files: {', '.join(map(str, files))}"]:
        print(line)
    return EXIT_FOUND if result.findings else 0


def prepare(arguments: list[str]) -> int:
    """Re-encode a collection so that it is small and fast to read; exit status 1 if a video could not be read."""
    from videomae.collection.configs import PrepareConfig
    from videomae.engine.configs import JobEngine

    parser = command_parser("data prepare", prepare)
    parser.add_argument("source", type=Path, help=COLLECTION_HELP)
    parser.add_argument("out", type=Path, help="folder for the prepared videos and their manifest.csv")
    parser.add_class_arguments(PrepareConfig)
    parser.add_argument("--workers", type=int | None, help="number of processes; default: one per processor")
    parser.add_argument(
        "--engine", type=JobEngine, default="local", help="ray: run on a Ray cluster; needs videomae[ray]"
    )
    parser.add_argument(
        "--shard", type=str | None, help="i/n: only every n-th video, starting with the i-th, i from 0 to n - 1"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="prepare all videos again if the settings have changed"
    )
    options = vars(parsed(parser, arguments))
    source, out, workers, shard, overwrite, engine = (
        options.pop(name) for name in ("source", "out", "workers", "shard", "overwrite", "engine")
    )

    from videomae.collection.configs import check_workers
    from videomae.collection.prepare import parse_shard, prepare_collection

    check_workers(workers)
    result = prepare_collection(
        source,
        out,
        config=PrepareConfig(**options),
        workers=workers,
        shard=parse_shard(shard),
        overwrite=overwrite,
        engine=engine,
    )
    for line in result.lines():
        print(line)
    return EXIT_FOUND if result.failed else 0


DATA_PARTS: dict[str, Callable[[list[str]], int]] = {
    "generate": generate,
    "import": import_collection,
    "check": check,
    "prepare": prepare,
}
