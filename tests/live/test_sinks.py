"""Events to a file, a real webhook on loopback, and a shell command; none of them may hold up a stream."""

from __future__ import annotations

import http.server
import io
import json
import threading
import time
from pathlib import Path

import pytest

from videomae.errors import ConfigError, RunError
from videomae.live.decisions import LiveEvent
from videomae.live.sinks import QUEUE_LENGTH, EventSinks

EVENT = LiveEvent("start", 'fight "x"', 1, 2.5, "2026-01-01T00:00:00+00:00", 0.75, None, 0.1)


def test_each_event_is_a_line_of_json_everywhere(tmp_path: Path) -> None:
    received: list[dict[str, object]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            self.send_response(503 if len(received) == 1 else 200)  # busy at first: it is sent again
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    file, log, stream = tmp_path / "events.jsonl", tmp_path / "log", io.StringIO()
    file.write_text("before\n")
    command = f'printf "%s %s " "$VIDEOMAE_EVENT" "$VIDEOMAE_LABEL" >> {log}; cat >> {log}'
    address = f"http://127.0.0.1:{server.server_address[1]}/hook"
    with EventSinks(file=file, webhook=address, command=command, stream=stream) as sinks:
        sinks.tell(EVENT)
    server.shutdown()
    server.server_close()
    assert json.loads(stream.getvalue()) == EVENT.values()
    assert file.read_text() == f"before\n{stream.getvalue()}"
    assert received == [EVENT.values(), EVENT.values()]
    assert log.read_text().startswith('start fight "x" {')
    assert (
        json.loads(log.read_text().partition(" {")[1].strip() + log.read_text().partition(" {")[2]) == EVENT.values()
    )
    assert (sinks.failed, sinks.dropped) == (0, 0)


def test_a_webhook_that_is_not_there_and_a_command_that_fails_are_told_and_the_rest_goes_on() -> None:
    said: list[str] = []
    stream = io.StringIO()
    with EventSinks(command="exit 3", stream=stream, say=said.append) as sinks:
        sinks.tell(EVENT)
    assert sinks.failed == 1
    assert said == ['event start of fight "x" was not delivered: the command ended with status 3: exit 3']
    assert len(stream.getvalue().splitlines()) == 1


def test_a_slow_command_holds_nothing_up_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    release = tmp_path / "release"
    sinks = EventSinks(command=f"while [ ! -e {release} ]; do sleep 0.05; done", stream=io.StringIO())
    with sinks:
        begin = time.monotonic()
        for _ in range(QUEUE_LENGTH + 20):
            sinks.tell(EVENT)
        passed = time.monotonic() - begin
        assert passed < 2
        assert 18 <= sinks.dropped <= 20
        release.touch()


def test_a_sink_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="webhook is 'ftp://x'; it must be an http:// or https:// address"):
        EventSinks(webhook="ftp://x")
    with pytest.raises(ConfigError, match=r"the folder of output .* does not exist"):
        EventSinks(file=tmp_path / "none" / "x.jsonl")
    closed = io.StringIO()
    closed.close()
    with pytest.raises(RunError, match="standard output cannot be written"):
        EventSinks(stream=closed).tell(EVENT)
