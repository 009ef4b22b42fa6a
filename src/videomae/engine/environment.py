"""Where a run is computed and with what: versions, machine, device, command line, git commits, at every start.

Only facts of a fixed list are kept. Of the environment's variables those of `VARIABLES` alone, since others hold
secrets; what an address or an option of the command line may hold of them is replaced by stars.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from videomae import __version__
from videomae.atomic import write_text_atomic
from videomae.engine.jobs import num_processors
from videomae.engine.precision import BF16_CPU_CAPABILITIES
from videomae.errors import RunError

ENVIRONMENT_FILE = "environment.json"
LIBRARIES = ("torch", "av", "numpy")  # whose versions a result may depend on
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "SLURM_RESTART_COUNT",
)
GIT_SECONDS = 10.0  # a repository on a slow file system must not hold a run up for longer
SECRET_OPTION = re.compile(r"(?i)^-{1,2}[\w.-]*(password|passwd|secret|token|credential|api[_-]?key)[\w.-]*$")
USER_OF_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
QUERY_OF_ADDRESS = re.compile(r"(://[^\s?]*\?)\S+")  # a signed address has its signature there
HIDDEN = "***"


def environment(device: str, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Return plain JSON values about this process and its machine; nothing of it is secret.

    Args:
        device: Type of the run's device, such as `cuda`.
        arguments: The command line, program first; `sys.argv` where not given.
    """
    return {
        "command": command_line(sys.argv if arguments is None else arguments),
        "versions": versions(),
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor_name(),
        "instruction_set": instruction_set(),
        "processors": num_processors(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "git": {"source": source_commit(), "directory": git_commit(Path.cwd())},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def record_environment(run: Path, facts: Mapping[str, Any], *, step: int) -> None:
    """Add an entry for a start to the file of a run folder, after those of earlier starts.

    Args:
        run: The run folder.
        facts: From `environment`, and what else is to be kept of this start.
        step: Steps done before it.

    Raises:
        RunError: If the file cannot be written.
    """
    path = run / ENVIRONMENT_FILE
    time = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    starts = [*read_environments(run), {"time": time, "step": step, **facts}]
    try:
        write_text_atomic(path, json.dumps({"starts": starts}, indent=1) + "\n")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): free space or choose another output folder"
        ) from None


def read_environments(run: Path) -> list[dict[str, Any]]:
    """Return what was kept of each start of a run, the oldest first; nothing of runs of versions that kept nothing.

    A file that is damaged is warned of and counts as none: no run depends on it.
    """
    path = run / ENVIRONMENT_FILE
    try:
        starts = json.loads(path.read_bytes())["starts"]
        if isinstance(starts, list) and all(isinstance(one, dict) for one in starts):
            return starts
        reason = "its starts are no list of objects"
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error)
    warnings.warn(f"{path} is damaged and ignored ({reason}): delete it", stacklevel=2)
    return []


def versions() -> dict[str, str]:
    """Return the versions of this package, Python, the libraries that matter, and CUDA where torch has it."""
    found = {"videomae": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    cuda = getattr(torch.version, "cuda", None)
    return found if cuda is None else {**found, "cuda": cuda}


@functools.cache
def processor_name() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_set() -> str:
    """Return the processor's instruction set as torch uses it, with what it has for bfloat16."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    has = {} if capabilities is None else capabilities()
    return ", ".join(
        [torch.backends.cpu.get_cpu_capability(), *(one for one in BF16_CPU_CAPABILITIES if has.get(one))]
    )


def device_name(kind: str) -> str:
    """Return the name of a device of a type: of a GPU with its memory."""
    if kind != "cuda" or not torch.cuda.is_available():
        return kind
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def command_line(arguments: Sequence[str]) -> str:
    """Return the command line as one line for a POSIX shell, without passwords, tokens and signatures."""
    program = Path(arguments[0]) if arguments else Path("python")
    is_own = program.name in ("videomae", "videomae.exe") or program.parts[-2:] == ("videomae", "__main__.py")
    shown: list[str] = ["videomae" if is_own else str(program)]
    hide_next = False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        if hide_next or (equals and SECRET_OPTION.match(name)):
            shown.append(HIDDEN if hide_next else f"{name}={HIDDEN}")
            hide_next = False
            continue
        hide_next = SECRET_OPTION.match(argument) is not None
        shown.append(QUERY_OF_ADDRESS.sub(rf"\g<1>{HIDDEN}", USER_OF_ADDRESS.sub(HIDDEN, argument)))
    return shlex.join(shown)


@functools.cache
def source_commit() -> dict[str, Any] | None:
    """Return the commit of this package's source where that is in a git checkout, else None."""
    folder = Path(__file__).resolve().parents[1]
    # An environment inside of some project's repository is not that project's source.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return git_commit(folder)


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit that is checked out in a folder, and whether tracked files differ from it.

    Args:
        folder: Any folder.

    Returns:
        `commit`, 40 hexadecimal digits, and `dirty`; None where the folder is in no repository, or one without a
        commit, or git is not there or takes too long.
    """
    told = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if told is None:
        return None
    lines = told.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints about a folder, None where it cannot."""
    # Without a lock on the index, which another git may be about to take, and without programs of the repository.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
