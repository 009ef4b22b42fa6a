"""Where the events of a stream go: standard output, a file, a webhook, a shell command.

A webhook or a command may be slow or fail: they are called in a thread behind a queue of bounded length, and what
does not fit is counted, so that no decision ever waits for them.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from videomae.errors import ConfigError, RunError
from videomae.inference.files import check_output
from videomae.live.decisions import LiveEvent

QUEUE_LENGTH = 100
TIMEOUT_SECONDS = 10.0
NUM_TRIES = 3
RETRY_SECONDS = 1.0
COMMAND_SECONDS = 60.0


class EventSinks:
    """Tells events to everything that was asked for; a context manager."""

    def __init__(
        self,
        *,
        file: Path | None = None,
        webhook: str | None = None,
        command: str | None = None,
        stream: IO[str] | None = None,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        """Open the file.

        Args:
            file: Gets a line of JSON for each event, behind what is in it.
            webhook: An http(s) address that gets each event as the body of a POST request.
            command: A shell command that is run for each event, with its JSON on standard input and its values in
                the environment: VIDEOMAE_EVENT, VIDEOMAE_LABEL, VIDEOMAE_SECONDS, VIDEOMAE_SCORE.
            stream: Gets a line of JSON for each event; standard output where not given.
            say: Told in a line when one of them fails.

        Raises:
            ConfigError: If the file cannot be written, or the address is none.
        """
        if webhook is not None and urlsplit(webhook).scheme.lower() not in ("http", "https"):
            raise ConfigError(f"webhook is {webhook!r}; it must be an http:// or https:// address")
        self._stream, self._say, self.dropped = stream or sys.stdout, say, 0
        self.failed = 0
        """Calls of the webhook or the command that failed."""
        self._file: IO[str] | None = None
        if file is not None:
            check_output(file)
            self._file = file.open("a", encoding="utf-8")
        self._calls: list[Callable[[dict[str, Any]], None]] = []
        if webhook is not None:
            self._calls.append(lambda values: _post(webhook, values))
        if command is not None:
            self._calls.append(lambda values: _run(command, values))
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._deliver, name="events", daemon=True)

    def __enter__(self) -> EventSinks:
        if self._calls:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._queue.put(None)  # behind the events that are still waiting
            self._thread.join(NUM_TRIES * TIMEOUT_SECONDS)
        if self._file is not None:
            self._file.close()

    def tell(self, event: LiveEvent) -> None:
        """Tell one event.

        Raises:
            RunError: If standard output is closed, or the file cannot be written.
        """
        values = event.values()
        line = f"{json.dumps(values, allow_nan=False)}\n"
        for target, name in ((self._stream, "standard output"), (self._file, "the file of events")):
            if target is None:
                continue
            try:
                target.write(line)
                target.flush()
            except (OSError, ValueError) as error:
                raise RunError(f"{name} cannot be written ({error}): the events before this one are in it") from None
        if self._calls:
            try:
                self._queue.put_nowait(values)
            except queue.Full:
                self.dropped += 1

    def _deliver(self) -> None:
        while (values := self._queue.get()) is not None:
            for call in self._calls:
                try:
                    call(values)
                except (OSError, subprocess.SubprocessError, ValueError) as error:
                    self.failed += 1
                    self._say(f"event {values['event']} of {values['label']} was not delivered: {error}")


def _post(address: str, values: dict[str, Any]) -> None:
    """Send an event; tries again where the server does not answer or has a fault of its own."""
    body = json.dumps(values, allow_nan=False).encode("utf-8")
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    for number in range(NUM_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                return
        except OSError as error:  # urllib's errors are
            if number + 1 == NUM_TRIES or getattr(error, "code", 500) < 500:
                raise
            time.sleep(RETRY_SECONDS)


def _run(command: str, values: dict[str, Any]) -> None:
    names = ("event", "label", "seconds", "score")
    environment = {**os.environ, **{f"VIDEOMAE_{name.upper()}": str(values[name]) for name in names}}
    text = json.dumps(values, allow_nan=False)
    done = subprocess.run(
        command, shell=True, input=text, text=True, env=environment, timeout=COMMAND_SECONDS, check=False
    )
    if done.returncode:
        raise OSError(f"the command ended with status {done.returncode}: {command}")
