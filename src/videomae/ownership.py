"""One process at a time in a folder: who writes there owns it, and a second one is refused.

The lock is the operating system's, so it ends with its owner, also where that is killed. It is a POSIX record lock
(`fcntl.lockf`) and not one of `flock`, which worker processes that are forked would inherit and keep.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomae.errors import RunError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"

# C's `struct flock` (type, whence, start, length, process in the order of the system), and where its type is.
_FLOCK = {"linux": ("hhqqi0q", 0), "darwin": ("qqihh0q", 3)}

_HELD_ERRORS = (errno.EACCES, errno.EAGAIN)  # POSIX allows either where another process has the lock
_held: dict[str, int] = {}  # lock files of this process, whose own locks never refuse it; the value is its id
_held_guard = threading.Lock()


@contextmanager
def owned(folder: Path, *, what: str, shared: bool = False, name: str = LOCK_FILE) -> Iterator[None]:
    """Own a folder while the block runs; its lock file is made at the start and removed at the end.

    A process that was killed owns nothing; the file that it leaves is taken over. Where the system or the file system
    has no such locks, a warning says so, and the block runs without.

    Args:
        folder: The folder; it is made if it is missing.
        what: What the owner does there, for messages, such as "run".
        shared: Whether others that ask for a shared part may be there at the same time; who does not is alone.
        name: Name of the lock file.

    Raises:
        RunError: If another process, or this one, is there; or the lock file cannot be written.
    """
    path = Path(os.path.realpath(folder)) / name
    key = str(path)
    with _held_guard:
        if _held.get(key) == os.getpid():
            raise _refused(folder, what, "this process")
        _held[key] = os.getpid()
    descriptor = None
    try:
        descriptor = _locked(path, folder, what, shared=shared)
        yield
    finally:
        if descriptor is not None:
            _release(path, descriptor)
        with _held_guard:
            del _held[key]


def is_owned(folder: Path, *, name: str = LOCK_FILE) -> bool:
    """Return whether a process owns a folder now; nothing is locked or changed by asking.

    Args:
        folder: The folder.
        name: Name of the lock file.
    """
    path = Path(os.path.realpath(folder)) / name
    with _held_guard:
        if _held.get(str(path)) == os.getpid():  # which the system would not tell; and closing the file would end it
            return True
    if sys.platform not in _FLOCK:
        return False
    layout, place = _FLOCK[sys.platform]
    asked = [fcntl.F_WRLCK if position == place else 0 for position in range(5)]
    try:
        with open(path, "rb") as stream:
            told = fcntl.fcntl(stream, fcntl.F_GETLK, struct.pack(layout, *asked))
    except OSError:  # no such file: nobody is there
        return False
    found: int = struct.unpack(layout, told)[place]
    return found != fcntl.F_UNLCK


def _locked(path: Path, folder: Path, what: str, *, shared: bool) -> int | None:
    """Return the open and locked file; None where there are no locks."""
    if sys.platform == "win32":
        _warn_unlocked(folder, what, "this system has no locks that end with their owner")
        return None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
                if _is_file_of(descriptor, path):
                    _describe(descriptor)
                    return descriptor
            except OSError as error:
                owner = _owner(descriptor)
                os.close(descriptor)
                if error.errno in _HELD_ERRORS:
                    raise _refused(folder, what, owner) from None
                if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    _warn_unlocked(folder, what, f"its file system has no locks ({error.strerror})")
                    return None
                raise
            os.close(descriptor)  # its owner has removed it meanwhile: take the new one
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; make {folder} writable") from None


def _release(path: Path, descriptor: int) -> None:
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        # Alone only: those who share the folder keep the file, which who comes next must meet.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_file_of(descriptor, path):
            path.unlink()
    os.close(descriptor)


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _describe(descriptor: int) -> None:
    """Write into the lock file who owns it, for the message of whoever is refused."""
    facts = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(sys.argv)[:200],
    }
    content = (json.dumps(facts) + "\n").encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _owner(descriptor: int) -> str:
    """Return what the lock file says of its owner."""
    try:
        facts: Any = json.loads(os.pread(descriptor, 4096, 0))
        pid, host = int(facts["pid"]), str(facts["host"])
        text = f"process {pid} on {host}, since {facts['since']}: {facts['command']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
    # Of several that share the folder, the one that wrote last may have ended.
    return text if host != socket.gethostname() or _is_running(pid) else "another process"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _refused(folder: Path, what: str, owner: str) -> RunError:
    return RunError(
        f"{folder} is in use by another {what} ({owner}): wait until it has ended, end it, or choose another folder"
    )


def _warn_unlocked(folder: Path, what: str, reason: str) -> None:
    warnings.warn(
        f"{folder} is not locked: {reason}; do not start a second {what} in it while this one is running",
        stacklevel=5,
    )
