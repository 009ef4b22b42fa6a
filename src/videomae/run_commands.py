"""The parts of `videomae runs`: one part is one function below, see `cli`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from videomae.command_options import command_parser, parsed, print_table


def list_runs(arguments: list[str]) -> int:
    """List the training runs under a folder: kind, state, steps, loss, accuracy, speed."""
    parser = command_parser("runs list", list_runs)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="folder to search; default: the current one"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON with more details of each run instead of a table"
    )
    options = parsed(parser, arguments)

    from videomae.report.runs import find_runs, read_run, summarize, summary_table

    runs = find_runs(options.folder, on_problem=lambda line: print(f"warning: {line}", file=sys.stderr))
    # By their start; those that do not tell it first.
    summaries = sorted((summarize(read_run(path)) for path in runs), key=lambda one: (one.started or "", one.folder))
    if options.json:
        import json

        print(json.dumps({"runs": [one.to_dict() for one in summaries]}, indent=2, allow_nan=False))
        return 0
    if not summaries:
        print(f"no runs below {options.folder}: training writes one to its --out folder", file=sys.stderr)
        return 0
    print_table(*summary_table(summaries))
    for one in summaries:
        for line in ([f"failed: {one.error}"] if one.error else []) + list(one.problems):
            print(f"{one.folder}: {line}")
    return 0


def compare(arguments: list[str]) -> int:
    """Compare training runs: curves on an HTML page, and differences in settings, versions and results."""
    parser = command_parser("runs compare", compare)
    parser.add_argument("runs", type=Path, nargs="+", help="two or more run folders")
    parser.add_argument("--out", type=Path, default=Path("comparison.html"), help=".html file to write")
    options = parsed(parser, arguments)

    from videomae.inference.files import check_output
    from videomae.report.comparison_page import compare_runs, write_comparison_page

    check_output(options.out, suffix=".html")
    comparison = compare_runs(options.runs)
    print_table(("", *comparison.names), comparison.figures())
    for rows, title, same in (
        (comparison.settings, "settings that differ", "all settings are the same"),
        (comparison.made_with, "versions, commits and machines that differ", "versions and machines are the same"),
    ):
        print(f"\n{title if rows else same}")
        if rows:
            print_table(("", *comparison.names), rows)
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        for problem in run.problems:
            print(f"{name}: {problem}")
    write_comparison_page(options.out, comparison)
    print(f"\nreport: {options.out}")
    return 0


RUNS_PARTS: dict[str, Callable[[list[str]], int]] = {"list": list_runs, "compare": compare}
