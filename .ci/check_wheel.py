"""Check that a built wheel is complete and runs: `python .ci/check_wheel.py dist/videomae-*.whl`.

Needs no second environment: the wheel is unpacked into a temporary folder that stands before the installed
package on Python's path.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
# What is not Python is what builds lose: one file of each kind must be there, whatever the source holds.
NEEDED = ("videomae/py.typed", "videomae/recipes/*.yaml", "videomae/report/*.html*")
PROBE = "import sys, videomae; print(videomae.__file__); [getattr(videomae, name) for name in videomae.__all__]"


def missing_files(names: set[str]) -> list[str]:
    """Return what the wheel lacks: source files, and kinds of file that must be there."""
    source = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "videomae").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    kinds = [kind for kind in NEEDED if not any(fnmatchcase(name, kind) for name in names)]
    return [*sorted(source - names), *kinds]


def run_from(folder: str, *arguments: str) -> str:
    """Run Python with the unpacked wheel first on its path and return what it prints."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"the wheel does not run: {' '.join(arguments)}\n{result.stderr}")
    return result.stdout.strip()


def main() -> None:
    """Check the wheel named on the command line; exit with a message at the first fault."""
    (wheel,) = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = set(archive.namelist())
        if missing := missing_files(names):
            sys.exit(f"the wheel lacks {', '.join(missing)}")
        archive.extractall(folder)
        origin = run_from(folder, "-c", PROBE)
        if not Path(origin).resolve().is_relative_to(Path(folder).resolve()):
            sys.exit(f"the check imported {origin}, not the wheel")
        version = run_from(folder, "-m", "videomae", "--version")
    print(f"wheel: {Path(wheel).name}, {len(names)} files, runs as {version}")


if __name__ == "__main__":
    main()
