"""The public names of the package: that each is there, and that asking for none costs nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import videomae

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "src" / "videomae"

IMPORT_BUDGET_SECONDS = 0.3
HEAVY = ("torch", "numpy", "av", "transformers", "matplotlib", "huggingface_hub", "rich", "jsonargparse")


def run_python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, in a folder that is not the checkout."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def type_checker_imports() -> dict[str, str]:
    """Return name -> module as the TYPE_CHECKING block of `videomae/__init__.py` lists them."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert len(blocks) == 1
    return {
        alias.name: str(node.module)
        for node in blocks[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_public_names_are_sorted_and_listed_once() -> None:
    assert list(videomae.__all__) == sorted(set(videomae.__all__))
    assert 20 <= len(videomae.__all__) <= 30, "about 25 names: more are hard to survey, fewer have lost one"


def test_the_three_lists_of_public_names_agree() -> None:
    assert {*videomae._owners(), "__version__"} == set(videomae.__all__)
    assert type_checker_imports() == videomae._owners()


@pytest.mark.parametrize("name", videomae.__all__)
def test_public_name_is_importable(name: str) -> None:
    value = getattr(videomae, name)
    if name != "__version__":
        assert value is getattr(import_module(videomae._owners()[name]), name)


def test_no_public_name_hides_a_package() -> None:
    members = {path.stem for path in PACKAGE.iterdir()}
    assert "model" in members
    assert members.isdisjoint(set(videomae.__all__) - {"__version__"})


def test_dir_lists_the_names_not_imported_yet(tmp_path: Path) -> None:
    code = "import videomae; assert 'Predictor' not in vars(videomae); print(*dir(videomae))"
    result = run_python(code, tmp_path)
    assert set(videomae.__all__) <= set(result.stdout.split()), result.stderr


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'videomae' has no attribute 'Predictr'"):
        videomae.Predictr  # noqa: B018


def test_an_import_error_inside_a_package_is_not_mistaken_for_an_unknown_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(videomae._MODULE_OF, "MaskConfig", "videomae.no_such_package")
    monkeypatch.delitem(vars(videomae), "MaskConfig", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        videomae.MaskConfig  # noqa: B018


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, videomae; print(*(set({HEAVY}) & set(sys.modules)))"
    result = run_python(code, tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_importing_the_package_is_fast(tmp_path: Path) -> None:
    code = "from time import perf_counter as now; start = now(); import videomae; print(now() - start)"
    seconds = [float(run_python(code, tmp_path).stdout) for _ in range(5)]
    # The fastest of five: a busy machine slows some runs, and no machine speeds one up.
    assert min(seconds) < IMPORT_BUDGET_SECONDS, seconds


def test_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert videomae.__version__ == project["version"]


def test_python_dash_m_runs_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "videomae", "--version"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert videomae.__version__ in result.stdout


def test_the_installed_command_is_the_same_program(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / ("videomae.exe" if os.name == "nt" else "videomae")
    if not command.exists():
        pytest.skip(f"{command.name} is not installed beside {sys.executable}")
    result = subprocess.run(
        [command, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert videomae.__version__ in result.stdout
