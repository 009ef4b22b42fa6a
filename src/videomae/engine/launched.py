"""What torchrun tells a process of its place, read from the environment; this file must not wait for torch."""

from __future__ import annotations

import os
import sys

from videomae.errors import ConfigError


def launched_number(name: str, default: int) -> int:
    """Return a number that torchrun sets, such as WORLD_SIZE; the default without torchrun.

    Raises:
        ConfigError: If it is no number.
    """
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ConfigError(f"the environment variable {name} is {value!r}, no number: start the run with torchrun")
    return int(value)


def silence_others() -> bool:
    """Let the first process of a run alone print to standard output from here on; return whether this is another."""
    if launched_number("RANK", 0) == 0:
        return False
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return True
