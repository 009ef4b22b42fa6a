"""Several processes of one run, forked from the test: what torchrun does, without starting Python anew."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch._dynamo  # noqa: F401  # a second of every process that optimizes: here once, for those that are forked

PATIENCE_SECONDS = 240.0


def in_processes(count: int, function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in processes that find each other by the variables that torchrun sets; all must succeed.

    Args:
        count: Processes.
        function: Called in each.
        *arguments: For it.
    """
    context = multiprocessing.get_context("fork")
    port = free_port()
    processes = [
        context.Process(target=_call, args=(rank, count, port, function, arguments)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    statuses = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    assert statuses == [0] * count, statuses


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _call(rank: int, count: int, port: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os._exit(0)
