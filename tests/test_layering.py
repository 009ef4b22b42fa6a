"""The architecture of docs/architecture.md, enforced: which package imports which, and what a file may be.

The second half of this file proves on small made-up packages that each of the checks can fail.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from architecture_checks import (
    LAYERS,
    MAX_MODEL_LINES,
    cycle_faults,
    docstring_faults,
    file_faults,
    imports,
    layer_faults,
    num_lines,
    opening_faults,
    own_imports,
    python_files,
    share_faults,
)

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "src" / "videomae"


def test_every_file_imports_only_lower_layers() -> None:
    assert layer_faults(PACKAGE) == []
    num_imports = sum(len(own_imports(path, PACKAGE)) for path in python_files(PACKAGE))
    assert num_imports > len(python_files(PACKAGE)), "too few imports met: the reader of imports is broken"


def test_the_model_is_the_network_alone_and_opens_no_file() -> None:
    assert opening_faults(PACKAGE / "model", PACKAGE) == []
    assert 1000 < num_lines(PACKAGE / "model") <= MAX_MODEL_LINES


def test_no_package_is_a_fifth_of_the_whole() -> None:
    assert share_faults(PACKAGE) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert cycle_faults(PACKAGE) == []


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_files_are_short_and_named_after_what_they_hold_and_use_no_torchvision(folder: str) -> None:
    if not python_files(REPO / folder):
        pytest.skip(f"{folder}/ holds no Python file")
    assert file_faults(REPO / folder, PACKAGE) == []


def test_every_package_file_says_what_it_is_for() -> None:
    assert docstring_faults(PACKAGE) == []


def test_every_package_of_the_table_exists() -> None:
    members = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert set(LAYERS) - members == set()


def table_rows() -> list[tuple[str, str, set[str]]]:
    """Return layer, package and names of files from each row of the table of docs/architecture.md."""
    page = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)(?:/|\.py)` \|([^|]*)\|", page, flags=re.MULTILINE)
    return [(layer, name, set(re.findall(r"`(\w+)`", files))) for layer, name, files in rows]


def test_the_layers_are_those_of_the_architecture_page() -> None:
    rows = table_rows()
    assert {name: int(layer) for layer, name, _ in rows} == LAYERS
    assert len(rows) == len(LAYERS)


def test_the_architecture_page_names_the_files_of_every_package() -> None:
    on_paper = {name: files for _, name, files in table_rows()}
    on_disk = {name: {path.stem for path in (PACKAGE / name).glob("*.py")} - {"__init__"} for name in on_paper}
    assert on_paper == on_disk


def test_the_libraries_imported_are_those_declared() -> None:
    modules = {item.module.split(".")[0] for path in python_files(PACKAGE) for item in imports(path, PACKAGE)}
    owners = packages_distributions()
    foreign = modules - sys.stdlib_module_names - {PACKAGE.name}
    assert {distribution(owners.get(module, [module])[0]) for module in foreign} == declared_libraries()


def test_every_library_has_its_reason_on_paper() -> None:
    paper = (REPO / "docs" / "libraries.md").read_text(encoding="utf-8")
    used = paper.split("## Used")[1].split("For development only")[0]
    rows = re.findall(r"^\| (?!library)([\w.-]+)", used, flags=re.MULTILINE)
    assert {distribution(name) for name in rows} == declared_libraries()


def declared_libraries() -> set[str]:
    """Return the distributions that the project file says the package needs, its extras included."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        entry for name, entries in project["optional-dependencies"].items() if name != "dev" for entry in entries
    ]
    return {distribution(re.split(r"[^\w.-]", entry)[0]) for entry in (*project["dependencies"], *extras)}


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
IN_MODEL = "model/layers.py"


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
        *layer_faults(package),
        *opening_faults(package / "model", package),
        *cycle_faults(package),
        *file_faults(package, package),
        *docstring_faults(package),
    ]


def test_the_checks_find_nothing_in_a_sound_package(tmp_path: Path) -> None:
    assert all_faults(build(tmp_path, {})) == []


BROKEN = {
    "upward": (
        "masking.py",
        "from videomae.data.loader import L",
        "masking.py:2: masking imports data, which is on a higher",
    ),
    "dotted": (
        "masking.py",
        "import videomae.data.loader as d",
        "masking imports data, which is on a higher layer",
    ),
    "inside": (
        "masking.py",
        "def f():\n    from videomae.data import loader",
        "masking.py:3: masking imports data",
    ),
    "relative": (IN_MODEL, "from ..inference import loaded", "model imports inference, which is on a higher layer"),
    "by string": ("masking.py", "import_module('videomae.data.loader')", "masking imports data, which is on"),
    "front": (IN_MODEL, "from videomae import Name", "model imports __init__, which is on a higher layer"),
    "front whole": (
        "video/probe.py",
        "import videomae",
        "video imports __init__, which is on a higher layer",
    ),
    "neighbour": (
        "data/split.py",
        "from videomae.sharing import record",
        "data imports sharing, which is on the same layer",
    ),
    "neighbour file": (
        "patches.py",
        "from videomae.errors import X",
        "patches imports errors, which is on the same layer",
    ),
    "no layer": ("cellar/wine.py", "", "cellar/wine.py: cellar is not in the table of layers"),
    "open": (IN_MODEL, "def f(p):\n    return open(p)", "model/layers.py:3: open opens a file: leave that to"),
    "path": (IN_MODEL, "def f(p):\n    p.write_text('')", "model/layers.py:3: p.write_text opens a file"),
    "torch file": (IN_MODEL, "import torch\ntorch.load('x')", "model/layers.py:3: torch.load opens a file"),
    "json": (IN_MODEL, "import json", "model/layers.py:2: imports json: leave files to weights/ or sharing/"),
    "safetensors": (IN_MODEL, "from safetensors.torch import load", "model/layers.py:2: imports safetensors.torch"),
    "atomic": (IN_MODEL, "from videomae.atomic import f", "model/layers.py:2: imports videomae.atomic: leave files"),
    "cycle": ("model/config.py", "from .encoder import E", "import cycle: videomae.model."),
    "long": (IN_MODEL, "x = 1\n" * 399, "model/layers.py: 401 lines, more than 400: cut it in two"),
    "name": (
        "model/utils.py",
        "",
        "model/utils.py: the name says 'utils': name the file after what it holds",
    ),
    "joined name": ("model/video_helpers.py", "", "model/video_helpers.py: the name says 'helpers'"),
    "folder name": ("model/common/mask.py", "", "model/common/mask.py: the name says 'common'"),
    "refused": (IN_MODEL, "import torchvision.io", "imports torchvision.io: see docs/libraries.md"),
    "refused from": (IN_MODEL, "from torchvision.transforms import v2", "imports torchvision.transforms: see"),
}


@pytest.mark.parametrize(("file", "code", "fault"), BROKEN.values(), ids=BROKEN.keys())
def test_the_checks_find_the_fault(tmp_path: Path, file: str, code: str, fault: str) -> None:
    faults = all_faults(build(tmp_path, {file: code}))
    assert len(faults) == 1, faults
    assert fault in faults[0]


def test_a_file_of_exactly_the_longest_length_is_no_fault(tmp_path: Path) -> None:
    assert all_faults(build(tmp_path, {IN_MODEL: "x = 1\n" * 398})) == []


def test_a_package_of_more_than_a_fifth_of_all_lines_is_a_fault(tmp_path: Path) -> None:
    files = {f"{name}/loader.py": "x = 1\n" * 50 for name in ("data", "video", "train", "report", "recipes")}
    package = build(tmp_path, {**files, "weights/saving.py": "x = 1\n" * 70})
    assert share_faults(package) == ["weights/ has 20.6% of all lines, more than 20%"]


def test_the_checks_find_a_missing_docstring(tmp_path: Path) -> None:
    package = build(tmp_path, {})
    (package / IN_MODEL).write_text("x = 1\n", encoding="utf-8")
    assert all_faults(package) == ["model/layers.py: no module docstring"]
