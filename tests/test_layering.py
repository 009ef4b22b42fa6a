"""The house plan, enforced: who may import whom, and what a file may be.

Imports are read with `ast`, wherever they stand: at the top, inside a function, under TYPE_CHECKING. The
checks are plain functions of a folder, and the second half of this file proves on small made-up packages that
each of them can fail.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "src" / "videomae"

# The table of docs/architecture.md; a test below holds the two equal.
FLOORS = {
    "__init__": 8,
    "__main__": 8,
    "cli": 7,
    "demo": 6,
    "train": 5,
    "report": 5,
    "recipes": 4,
    "evaluate": 3,
    "inference": 3,
    "data": 2,
    "model": 1,
    "video": 1,
    "engine": 1,
    "masking": 1,
    "patches": 0,
    "atomic": 0,
    "errors": 0,
}
MAX_LINES = 400
FORBIDDEN_WORDS = {"util", "utils", "common", "misc", "helper", "helpers"}  # a name that says nothing
FORBIDDEN_PACKAGES = {"torchvision"}  # its releases are tied to torch's; docs/design/libraries.md


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


def room(module: str) -> str:
    """Return the top-level room or file that a module of the package belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path, package: Path) -> list[Import]:
    """Return what a file imports; of our own package the module itself, never the name taken out of it.

    `from videomae import __version__` is left out: the front of the house owns that literal and has run
    before any of its rooms.
    """
    known = {module_name(file, package) for file in python_files(package)}
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
                        found.append(Import(inner if inner in known else base, node.lineno))
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "importorskip")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.append(Import(name, node.lineno))
    return found


def _absolute(node: ast.ImportFrom, path: Path, package: Path) -> str:
    """Return the module that a `from ... import` names, with leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    folder = path.parent.relative_to(package.parent).parts
    return ".".join([*folder[: len(folder) - node.level + 1], *([node.module] if node.module else [])])


def own_imports(path: Path, package: Path) -> list[Import]:
    """Return those imports of a file that stay inside the package."""
    return [item for item in imports(path, package) if item.module.split(".")[0] == package.name]


def floor_faults(package: Path) -> list[str]:
    """Name every import that goes up a floor or to a neighbour, and every file without a floor."""
    faults = []
    for path in python_files(package):
        here = room(module_name(path, package)) if path.stem != "__init__" or path.parent != package else "__init__"
        where = path.relative_to(package).as_posix()
        if here not in FLOORS:
            faults.append(f"{where}: {here} is not in the table of floors: add it to docs/architecture.md")
            continue
        for item in own_imports(path, package):
            there = room(item.module)
            if there not in FLOORS or there == here:
                continue  # an unknown room is reported at its own files
            if FLOORS[there] > FLOORS[here]:
                faults.append(f"{where}:{item.line}: {here} imports {there}, which is on a higher floor")
            elif FLOORS[there] == FLOORS[here]:
                faults.append(f"{where}:{item.line}: {here} imports {there}, its neighbour on the same floor")
    return faults


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
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        if num_lines > MAX_LINES:
            faults.append(f"{where}: {num_lines} lines, more than {MAX_LINES}: cut it in two")
        words = {word for part in path.relative_to(folder).with_suffix("").parts for word in part.split("_")}
        for word in sorted(words & FORBIDDEN_WORDS):
            faults.append(f"{where}: the name says {word!r}: name the file after what it holds")
        for item in imports(path, package):
            if item.module.split(".")[0] in FORBIDDEN_PACKAGES:
                faults.append(f"{where}:{item.line}: imports {item.module}: see docs/design/libraries.md")
    return faults


def docstring_faults(folder: Path) -> list[str]:
    """Name every file that does not begin by saying what it is for."""
    return [
        f"{path.relative_to(folder).as_posix()}: no module docstring"
        for path in python_files(folder)
        if not ast.get_docstring(parse(path))
    ]


def test_every_file_imports_only_lower_floors() -> None:
    assert floor_faults(PACKAGE) == []
    num_imports = sum(len(own_imports(path, PACKAGE)) for path in python_files(PACKAGE))
    assert num_imports > len(python_files(PACKAGE)), "too few imports met: the reader of imports is broken"


def test_no_files_import_each_other_in_a_circle() -> None:
    assert cycle_faults(PACKAGE) == []


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_files_are_short_and_named_after_what_they_hold_and_use_no_torchvision(folder: str) -> None:
    if not python_files(REPO / folder):
        pytest.skip(f"{folder}/ holds no Python file")
    assert file_faults(REPO / folder, PACKAGE) == []


def test_every_package_file_says_what_it_is_for() -> None:
    assert docstring_faults(PACKAGE) == []


def test_every_room_of_the_table_exists() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert set(FLOORS) - rooms == set()


def plan_rows() -> list[tuple[str, str, set[str]]]:
    """Return floor, room and names of files from each row of the house plan's table."""
    plan = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)(?:/|\.py)` \|([^|]*)\|", plan, flags=re.MULTILINE)
    return [(floor, name, set(re.findall(r"`(\w+)`", files))) for floor, name, files in rows]


def test_the_floors_are_those_of_the_house_plan() -> None:
    rows = plan_rows()
    assert {name: int(floor) for floor, name, _ in rows} == FLOORS
    assert len(rows) == len(FLOORS)


def test_the_house_plan_names_the_files_of_every_room() -> None:
    on_paper = {name: files for _, name, files in plan_rows()}
    on_disk = {name: {path.stem for path in (PACKAGE / name).glob("*.py")} - {"__init__"} for name in on_paper}
    assert on_paper == on_disk


def test_the_libraries_imported_are_those_declared() -> None:
    modules = {item.module.split(".")[0] for path in python_files(PACKAGE) for item in imports(path, PACKAGE)}
    owners = packages_distributions()
    foreign = modules - sys.stdlib_module_names - {PACKAGE.name}
    assert {distribution(owners.get(module, [module])[0]) for module in foreign} == declared_libraries()


def test_every_library_has_its_reason_on_paper() -> None:
    paper = (REPO / "docs" / "design" / "libraries.md").read_text(encoding="utf-8")
    used = paper.split("## Used")[1].split("For development only")[0]
    rows = re.findall(r"^\| (?!library)([\w.-]+)", used, flags=re.MULTILINE)
    assert {distribution(name) for name in rows} == declared_libraries()


def declared_libraries() -> set[str]:
    """Return the distributions that the project file says the package needs."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {distribution(re.split(r"[^\w.-]", entry)[0]) for entry in project["dependencies"]}


def distribution(name: str) -> str:
    """Return a distribution's name as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


# The checks themselves: each must find its fault in a small made-up package, and nothing in a sound one.

SOUND = {
    "__init__.py": "__version__ = '1'",
    "errors.py": "",
    "patches.py": "import torch",
    "model/__init__.py": "",
    "model/config.py": "from videomae import __version__, errors\nfrom videomae.errors import X",
    "model/encoder.py": "import videomae.model.config\nfrom .config import C\nfrom . import config",
    "video/decode.py": "from ..errors import X",
    "data/loader.py": "import videomae.video.decode",
}


def build(tmp_path: Path, files: dict[str, str]) -> Path:
    """Write a package named videomae: the sound one, with the given files added or replaced."""
    package = tmp_path / "videomae"
    for name, text in {**SOUND, **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Made up."""\n{text}\n', encoding="utf-8")
    return package


def all_faults(package: Path) -> list[str]:
    """Run every check over a made-up package."""
    return [
        *floor_faults(package),
        *cycle_faults(package),
        *file_faults(package, package),
        *docstring_faults(package),
    ]


def test_the_checks_find_nothing_in_a_sound_package(tmp_path: Path) -> None:
    assert all_faults(build(tmp_path, {})) == []


LAYERS = "model/layers.py"
BROKEN = {
    "upward": (
        "masking.py",
        "from videomae.data.loader import L",
        "masking.py:2: masking imports data, which is on",
    ),
    "dotted": (
        "masking.py",
        "import videomae.data.loader as d",
        "masking imports data, which is on a higher floor",
    ),
    "inside": (
        "masking.py",
        "def f():\n    from videomae.data import loader",
        "masking.py:3: masking imports data",
    ),
    "relative": (LAYERS, "from ..data import loader", "model imports data, which is on a higher floor"),
    "by string": ("masking.py", "import_module('videomae.data.loader')", "masking imports data, which is on"),
    "front": (LAYERS, "from videomae import Name", "model imports __init__, which is on a higher floor"),
    "front whole": (
        "video/probe.py",
        "import videomae",
        "video imports __init__, which is on a higher floor",
    ),
    "neighbour": (
        "video/probe.py",
        "from videomae.model import config",
        "video imports model, its neighbour on",
    ),
    "neighbour file": (
        "patches.py",
        "from videomae.errors import X",
        "patches imports errors, its neighbour on",
    ),
    "no floor": ("cellar/wine.py", "", "cellar/wine.py: cellar is not in the table of floors"),
    "cycle": ("model/config.py", "from .encoder import E", "import cycle: videomae.model."),
    "long": (LAYERS, "x = 1\n" * 399, "model/layers.py: 401 lines, more than 400: cut it in two"),
    "name": (
        "model/utils.py",
        "",
        "model/utils.py: the name says 'utils': name the file after what it holds",
    ),
    "joined name": ("model/video_helpers.py", "", "model/video_helpers.py: the name says 'helpers'"),
    "folder name": ("model/common/mask.py", "", "model/common/mask.py: the name says 'common'"),
    "refused": (LAYERS, "import torchvision.io", "imports torchvision.io: see docs/design/libraries.md"),
    "refused from": (LAYERS, "from torchvision.transforms import v2", "imports torchvision.transforms: see"),
}


@pytest.mark.parametrize(("file", "code", "fault"), BROKEN.values(), ids=BROKEN.keys())
def test_the_checks_find_the_fault(tmp_path: Path, file: str, code: str, fault: str) -> None:
    faults = all_faults(build(tmp_path, {file: code}))
    assert len(faults) == 1, faults
    assert fault in faults[0]


def test_a_file_of_exactly_the_longest_length_is_no_fault(tmp_path: Path) -> None:
    assert all_faults(build(tmp_path, {LAYERS: "x = 1\n" * 398})) == []


def test_the_checks_find_a_missing_docstring(tmp_path: Path) -> None:
    package = build(tmp_path, {})
    (package / LAYERS).write_text("x = 1\n", encoding="utf-8")
    assert all_faults(package) == ["model/layers.py: no module docstring"]
