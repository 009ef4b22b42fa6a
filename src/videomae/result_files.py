"""What subcommands do with their results: check where they go, write JSON, end after Ctrl-C.

As in `cli`, what is slow to import is imported where it is used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

RESUME_HELP = "continue a stopped run from what it left next to --out"


def check_page(out: Path | None) -> None:
    """Check that an output, where there is one, is a page or JSON and can be written.

    Raises:
        ConfigError: If it cannot.
    """
    from videomae.errors import ConfigError
    from videomae.inference.files import check_output

    if out is None:
        return
    if out.suffix not in (".html", ".json"):
        raise ConfigError(f"output is {str(out)!r}; its name must end with .html or .json")
    check_output(out)


def check_resume(options: Any) -> None:
    """Check that `--resume` has an output to find what was left by.

    Raises:
        ConfigError: If it has none.
    """
    from videomae.errors import ConfigError

    if options.resume and options.out is None:
        raise ConfigError("--resume is given without --out, beside which a stopped call leaves its work: give --out")


def end_stopped(out: Path | None) -> NoReturn:
    """End a command that Ctrl-C has stopped, after its results are written.

    Raises:
        KeyboardInterrupt: Always.
    """
    goes_on = "; --resume continues" if out is not None else ": with --out, --resume could continue"
    print(f"stopped: what is done is told{goes_on}", file=sys.stderr)
    raise KeyboardInterrupt


def json_text(values: Any) -> str:
    """Return values as JSON text."""
    import json

    return json.dumps(values, indent=2, allow_nan=False)


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON, atomically.

    Raises:
        RunError: If the disk refuses.
    """
    from videomae.atomic import write_text_atomic
    from videomae.errors import RunError

    try:
        write_text_atomic(path, json_text(values) + "\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}): free space") from None
