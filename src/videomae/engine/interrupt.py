"""Ctrl-C that lets a run finish its step and save: asked once it waits, asked twice it stops.

Knows nothing of runs; the loop looks at `Interrupt.requested` between steps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and how schedulers and containers ask
NOTICE = b"\nstopping after this step; press Ctrl-C again to stop at once\n"


class Interrupt:
    """Whether the user or the system asked the run to stop."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.requested = False
        """True from the first signal on."""
        self.signal_name: str | None = None
        """Name of that signal, such as `SIGINT`."""


@contextmanager
def graceful_interrupt() -> Iterator[Interrupt]:
    """Turn the first SIGINT or SIGTERM into a request; from the second on, KeyboardInterrupt is raised.

    The handlers that were there are put back at the end. A signal that is ignored (as under nohup) stays
    ignored. Outside the main thread, where Python allows no handlers, nothing is changed and nothing is ever
    requested. Processes forked inside, such as data workers, leave Ctrl-C to this process and die of SIGTERM
    as usual.

    Returns:
        The object whose `requested` the loop reads.
    """
    interrupt = Interrupt()
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True
        interrupt.signal_name = signal.Signals(number).name
        # Not print(): the signal may have come in the middle of one, and a stream's lock is not re-entrant.
        with contextlib.suppress(OSError):
            os.write(2, NOTICE)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handle)
        yield interrupt
    finally:
        for number in taken:
            signal.signal(number, previous[number])
