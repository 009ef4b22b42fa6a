"""Checks of the architecture: plain functions of a folder, each of which returns the faults that it finds.

Imports are read with `ast`, wherever they stand: at the top, inside a function, under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

# The table of docs/architecture.md; a test below holds the two equal.
LAYERS = {
    "__init__": 14,
    "__main__": 14,
    "cli": 13,
    "data_commands": 12,
    "evaluate_command": 12,
    "footage_commands": 12,
    "recipe_commands": 12,
    "run_commands": 12,
    "training_commands": 12,
    "command_options": 11,
    "demo": 11,
    "train": 10,
    "report": 10,
    "recipes": 9,
    "live": 9,
    "compat": 9,
    "probing": 9,
    "timeline": 8,
    "evaluation": 8,
    "inference": 7,
    "monitor": 7,
    "model": 6,
    "search": 8,
    "anomaly": 9,
    "explain": 8,
    "index_commands": 12,
    "anomaly_commands": 12,
    "result_files": 11,
    "collection": 6,
    "sharing": 5,
    "processing": 4,
    "attentive": 4,
    "data": 5,
    "weights": 3,
    "video": 3,
    "engine": 3,
    "masking": 3,
    "patches": 1,
    "ownership": 2,
    "positions": 2,
    "pixel_loss": 2,
    "presets": 1,
    "atomic": 1,
    "errors": 1,
    "wording": 1,
}
MAX_LINES = 400
MAX_MODEL_LINES = 2100  # of all files of model/: the network and nothing else
MAX_SHARE_OF_LINES = 0.2  # of the package in one of its packages
FORBIDDEN_WORDS = {"util", "utils", "common", "misc", "helper", "helpers"}  # a name that says nothing
FORBIDDEN_PACKAGES = {"torchvision"}  # its releases are tied to torch's; docs/libraries.md
# What opens a file, and the modules that exist to read or write files; model/ has none of either.
OPENING_CALLS = frozenset(
    "open fdopen read_text read_bytes write_text write_bytes safe_open load_file save_file memmap fromfile tofile "
    "savez loadtxt unlink touch mkdir".split()
)
OPENING_METHODS = frozenset(("torch.load", "torch.save", "numpy.load", "np.load", "numpy.save", "np.save"))
FILE_MODULES = frozenset(("videomae.atomic", "json", "safetensors", "pickle", "zipfile", "shutil", "io"))


class Import(NamedTuple):
    """One module that a file imports, and the line that does it."""

    module: str
    line: int


def python_files(folder: Path) -> list[Path]:
    """Return the Python files below a folder, sorted."""
    return sorted(folder.rglob("*.py"))


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file; its name appears in a syntax error's message."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path, package: Path) -> str:
    """Return the dotted name under which Python imports a file of the package."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def member(module: str) -> str:
    """Return the top-level package or file that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path, package: Path) -> list[Import]:
    """Return what a file imports; of our own package the module itself, never the name taken out of it.

    `from videomae import __version__` is left out: that literal is there before any module of the package runs.
    """
    found = []
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import():
                found += [Import(alias.name, node.lineno) for alias in node.names]
            case ast.ImportFrom():
                base = _absolute(node, path, package)
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    if (base, alias.name) != (package.name, "__version__"):
                        found.append(Import(inner if _is_module(inner, package) else base, node.lineno))
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "importorskip")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.append(Import(name, node.lineno))
    return found


def _is_module(name: str, package: Path) -> bool:
    """Tell whether a dotted name is that of a file or folder of the package."""
    head, *parts = name.split(".")
    path = package.joinpath(*parts)
    return head == package.name and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def _absolute(node: ast.ImportFrom, path: Path, package: Path) -> str:
    """Return the module that a `from ... import` names, with leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    folder = path.parent.relative_to(package.parent).parts
    return ".".join([*folder[: len(folder) - node.level + 1], *([node.module] if node.module else [])])


def own_imports(path: Path, package: Path) -> list[Import]:
    """Return those imports of a file that stay inside the package."""
    return [item for item in imports(path, package) if item.module.split(".")[0] == package.name]


def layer_faults(package: Path) -> list[str]:
    """Name every import of the same or a higher layer, and every file without a layer."""
    faults = []
    for path in python_files(package):
        here = member(module_name(path, package)) if path.stem != "__init__" or path.parent != package else "__init__"
        where = path.relative_to(package).as_posix()
        if here not in LAYERS:
            faults.append(f"{where}: {here} is not in the table of layers: add it to docs/architecture.md")
            continue
        for item in own_imports(path, package):
            there = member(item.module)
            if there not in LAYERS or there == here:
                continue  # an unknown package is reported at its own files
            if LAYERS[there] > LAYERS[here]:
                faults.append(f"{where}:{item.line}: {here} imports {there}, which is on a higher layer")
            elif LAYERS[there] == LAYERS[here]:
                faults.append(f"{where}:{item.line}: {here} imports {there}, which is on the same layer")
    return faults


def opening_faults(folder: Path, package: Path) -> list[str]:
    """Name every call in a folder that opens a file, and every import of a module that exists to do so."""
    faults = []
    for path in python_files(folder):
        where = path.relative_to(package).as_posix()
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in OPENING_METHODS or called.rpartition(".")[2] in OPENING_CALLS:
                faults.append(f"{where}:{node.lineno}: {called} opens a file: leave that to weights/ or sharing/")
        for item in imports(path, package):
            if any(item.module == name or item.module.startswith(f"{name}.") for name in FILE_MODULES):
                faults.append(f"{where}:{item.line}: imports {item.module}: leave files to weights/ or sharing/")
    return faults


def num_lines(folder: Path) -> int:
    """Return the number of lines of all Python files of a folder, or of one file."""
    files = [folder] if folder.is_file() else python_files(folder)
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def share_faults(package: Path) -> list[str]:
    """Name every package that has too large a part of all lines."""
    total = num_lines(package)
    return [
        f"{path.name}/ has {num_lines(path) / total:.1%} of all lines, more than {MAX_SHARE_OF_LINES:.0%}"
        for path in sorted(package.iterdir())
        if path.is_dir() and num_lines(path) > MAX_SHARE_OF_LINES * total
    ]


def cycle_faults(package: Path) -> list[str]:
    """Name one cycle of imports between files, if there is any."""
    graph = {
        module_name(path, package): {item.module for item in own_imports(path, package)}
        for path in python_files(package)
    }
    for module, imported in graph.items():
        imported.discard(module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["import cycle: " + " -> ".join(error.args[1])]
    return []


def file_faults(folder: Path, package: Path) -> list[str]:
    """Name every file that is too long, has a name that says nothing, or imports a refused package."""
    faults = []
    for path in python_files(folder):
        where = path.relative_to(folder).as_posix()
        if num_lines(path) > MAX_LINES:
            faults.append(f"{where}: {num_lines(path)} lines, more than {MAX_LINES}: cut it in two")
        words = {word for part in path.relative_to(folder).with_suffix("").parts for word in part.split("_")}
        for word in sorted(words & FORBIDDEN_WORDS):
            faults.append(f"{where}: the name says {word!r}: name the file after what it holds")
        for item in imports(path, package):
            if item.module.split(".")[0] in FORBIDDEN_PACKAGES:
                faults.append(f"{where}:{item.line}: imports {item.module}: see docs/libraries.md")
    return faults


def docstring_faults(folder: Path) -> list[str]:
    """Name every file that does not begin by saying what it is for."""
    return [
        f"{path.relative_to(folder).as_posix()}: no module docstring"
        for path in python_files(folder)
        if not ast.get_docstring(parse(path))
    ]
