"""The parts of `videomae recipes`: one part is one function below, see `cli`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from videomae.command_options import command_parser, parsed

KIND_HELP = "pretrain or finetune; default: both"


def list_recipes(arguments: list[str]) -> int:
    """List the packaged recipes, what each of them trains and the result it reaches."""
    parser = command_parser("recipes list", list_recipes)
    parser.add_argument("--kind", type=Literal["pretrain", "finetune"] | None, help=KIND_HELP)
    options = parsed(parser, arguments)

    from rich.console import Console
    from rich.table import Table

    from videomae.recipes.catalogue import packaged_recipes

    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("for", no_wrap=True)
    table.add_column("what")
    table.add_column("result")
    for one in packaged_recipes(options.kind):
        table.add_row(one.name, one.kind, one.what, one.result)
    Console(highlight=False, emoji=False, markup=False).print(table)
    print("videomae recipes show NAME has the command, the source and, with --explain, every value")
    return 0


def show(arguments: list[str]) -> int:
    """Show a packaged recipe: its file, or with --explain every value with its meaning and origin."""
    parser = command_parser("recipes show", show)
    parser.add_argument("name", help="name of the recipe, as for --config")
    parser.add_argument("--kind", type=Literal["pretrain", "finetune"] | None, help=KIND_HELP)
    parser.add_argument(
        "--explain", action="store_true", help="show every value, including those that the file leaves out"
    )
    options = parsed(parser, arguments)

    from rich.console import Console
    from rich.table import Table

    from videomae.recipes.catalogue import explained, packaged, recipe_text

    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=not options.explain)
    for one in packaged(options.name, options.kind):
        if not options.explain:
            console.print(recipe_text(one))
            continue
        console.print(
            f"{one.name}, {one.kind}: {one.what}\n{one.command}\nsource: {one.source}\nresult: {one.result}"
        )
        table = Table(box=None, pad_edge=False)
        for column in ("field", "value", "from"):
            table.add_column(column, no_wrap=column != "value")
        table.add_column("meaning")
        for row in explained(one):
            table.add_row(row.name, row.value, row.origin, row.meaning)
        console.print(table)
    return 0


RECIPES_PARTS: dict[str, Callable[[list[str]], int]] = {"list": list_recipes, "show": show}
