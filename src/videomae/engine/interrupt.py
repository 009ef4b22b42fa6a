"""SIGINT, SIGTERM and SIGUSR1 that let a run save: the first asks for an orderly stop, the second stops at once.

Slurm, Kubernetes and systemd send SIGTERM and kill some seconds later, a terminal sends SIGINT to all processes of a
run. A training step may take longer than those seconds, so the loop marks the part of a step that can be discarded: a
signal ends that part at once, and the state of the last finished step is saved.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported by processes that need no torch, see engine/jobs.py
    from torch import Tensor
    from torch.nn import Parameter

# Ctrl-C, what schedulers and containers send, and what Slurm is asked to send before it ends a job.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))
NOTICE = b"\nstopping: the last finished step is saved; press Ctrl-C again to stop at once\n"
REPEAT_SECONDS = 1.0  # `timeout` and `scancel` signal the process and then its whole group: one request, sent twice


class StopRequested(KeyboardInterrupt):
    """An orderly stop was asked for; like KeyboardInterrupt no `except Exception` catches it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}")
        self._number = number
        self.exit_status = 128 + number
        """What a shell reports for a process that this signal ended: 130 for SIGINT, 143 for SIGTERM."""

    def __reduce__(self) -> tuple[type[StopRequested], tuple[signal.Signals]]:
        """Let the first process of a run send it to the others."""
        return StopRequested, (self._number,)


class Interrupt:
    """Whether the user or the system asked the run to stop."""

    def __init__(self, *, agreed: bool = False) -> None:
        """Begin with nothing asked.

        Args:
            agreed: Several processes stop together, and a signal interrupts nothing: the one that it came to tells
                the others, and all raise StopRequested at the same point.
        """
        self._agreed = agreed
        self.signal: signal.Signals | None = None
        """The first signal that came."""
        self._discardable = False
        self._time = 0.0

    @property
    def requested(self) -> bool:
        """True from the first signal on."""
        return self.signal is not None

    @contextmanager
    def discardable(self) -> Iterator[None]:
        """Mark work that a stop may discard: it is left at once, whatever it waits for.

        Python runs signal handlers between two of its instructions, so a single long call into C++ is left when it
        returns; `interruptible_backward` divides the longest one.

        Raises:
            StopRequested: In the body when a signal comes, and at entry and exit where one came before.
        """
        self._discardable = not self._agreed
        try:
            self._raise_if_requested()
            yield
            # The handler's exception may have been lost: Python drops those that are raised inside a finalizer.
            self._raise_if_requested()
        finally:
            self._discardable = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Mark work that one process does while others wait for it: in it a signal interrupts as in a run of one."""
        before, self._agreed = self._agreed, False
        try:
            yield
        finally:
            self._agreed = before

    def receive(self, number: int) -> None:
        """Take a signal; called by the handlers."""
        now = time.monotonic()
        if self.signal is not None:
            # torchrun passes on what a terminal has sent to all processes already.
            may_repeat = self._agreed or number != signal.SIGINT
            if may_repeat and number == self.signal and now - self._time < REPEAT_SECONDS:
                return
            raise KeyboardInterrupt
        self.signal, self._time = signal.Signals(number), now
        # Not print(): the signal may have come in the middle of one, and a stream's lock is not re-entrant.
        with contextlib.suppress(OSError):
            os.write(2, NOTICE)
        if self._discardable:
            raise StopRequested(self.signal)

    def _raise_if_requested(self) -> None:
        if self.signal is not None and not self._agreed:
            raise StopRequested(self.signal)


def interruptible_backward(parameters: Iterable[Parameter]) -> None:
    """Let signals end a backward pass on the CPU, which otherwise is one call into C++, twice as long as the forward.

    The gradients stay what they are. On other devices the call returns before they are computed.

    Args:
        parameters: Of the model; each gets a hook, in which Python can run the signal handlers.
    """
    for parameter in parameters:
        if parameter.requires_grad and parameter.device.type == "cpu":
            parameter.register_post_accumulate_grad_hook(_do_nothing)


def _do_nothing(parameter: Tensor) -> None:
    pass


@contextmanager
def graceful_interrupt(*, agreed: bool = False) -> Iterator[Interrupt]:
    """Turn the first SIGINT, SIGTERM or SIGUSR1 into a request; from the second on, KeyboardInterrupt is raised.

    The handlers that were there are put back at the end. A signal that is ignored (as under nohup) stays ignored.
    Outside the main thread, where Python allows no handlers, nothing is changed and nothing is ever requested.
    Processes forked inside, such as data workers, ignore both signals: this process decides when they end.

    Args:
        agreed: As for `Interrupt`.

    Returns:
        The object that tells whether a stop was asked for.
    """
    interrupt = Interrupt(agreed=agreed)
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            interrupt.receive(number)

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
