"""Memory, latency and drops of `videomae stream` over time.

    python -m benchmarks.stream MODEL --minutes 30 --out stream.json
    python -m benchmarks.stream MODEL rtsp://10.0.0.9/live --minutes 30 --out stream.json

Runs the command on a source and looks at its process's memory twice a minute. Without a source it is an RTSP server
on loopback (see `rtsp_server`) that every nine minutes is cut and back at once, stands still, and is away for a while
and back with another color and picture size.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.rtsp_server import RtspServer, color_pipeline, rtsp_fault

POLL_SECONDS = 30.0
FAULT_SECONDS = 180.0  # from one to the next
STALL_SECONDS = 20.0
AWAY_SECONDS = 30.0
LOOKS = (("red", 320), ("green", 240), ("blue", 160))  # what the server sends, one after the other
FROM_MINUTE = 5.0


def resident_mb(process_id: int) -> float:
    """Return the resident memory of a process in MB (Linux)."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the process has ended")


class FailingServer:
    """An RTSP server that is cut, stalled and restarted in turn; a context manager."""

    def __init__(self) -> None:
        if fault := rtsp_fault():
            raise SystemExit(f"{fault}; or give a source")
        self._server = self._started(0, None)
        self.address = self._server.address
        self.faults: list[tuple[float, str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fail, daemon=True)

    def __enter__(self) -> FailingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._server.kill()

    def _started(self, number: int, port: int | None) -> RtspServer:
        color, size = LOOKS[number % len(LOOKS)]
        return RtspServer(color_pipeline(color, size=size), port)

    def _fail(self) -> None:
        begin, restarts, number = time.monotonic(), 0, 0
        while not self._over.wait(begin + (number + 1) * FAULT_SECONDS - time.monotonic()):
            kind = ("cut", "stall", "restart")[number % 3]
            self.faults.append((round(time.monotonic() - begin), kind))
            if kind == "stall":
                self._server.process.send_signal(signal.SIGSTOP)
                self._over.wait(STALL_SECONDS)
                self._server.process.send_signal(signal.SIGCONT)
            else:
                self._server.kill()
                if kind == "restart":
                    self._over.wait(AWAY_SECONDS)
                    restarts += 1
                self._server = self._started(restarts, self._server.port)
            number += 1


def told(log: Path, events: Path) -> dict[str, Any]:
    """Return what the command has said: its last status, latencies of its status lines, and of the events it told."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if " reconnects, " in line]
    latencies = sorted(float(found) for line in lines for found in re.findall(r"latency ([0-9.]+) s", line))
    known = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()] if events.exists() else []
    return {
        "last_line": lines[-1] if lines else "",
        "latency_median": latencies[len(latencies) // 2] if latencies else None,
        "latency_highest": latencies[-1] if latencies else None,
        "events": [{name: one[name] for name in ("event", "label", "seconds", "latency", "why")} for one in known],
    }


def watch(model: str, source: str, server: FailingServer | None, options: argparse.Namespace) -> dict[str, Any]:
    """Run the command on a source for the minutes asked for, and write what is found twice a minute."""
    log, events = Path(f"{options.out}.log"), Path(f"{options.out}.events")
    events.unlink(missing_ok=True)
    command = [sys.executable, "-m", "videomae", "stream", model, source, "--rate", str(options.rate)]
    command += ["--show", "--events", str(events)]  # drawn to a file: a line every ten seconds
    found: dict[str, Any] = {}
    with (
        log.open("w", encoding="utf-8") as target,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=target) as process,
    ):
        begin, memory = time.monotonic(), []
        while time.monotonic() - begin < 60 * options.minutes and process.poll() is None:
            time.sleep(min(POLL_SECONDS, 60 * options.minutes))
            memory.append((round(time.monotonic() - begin), round(resident_mb(process.pid), 1)))
            found = {"seconds_and_mb": memory, "faults": server.faults if server else [], **told(log, events)}
            options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        process.terminate()  # not SIGINT, which is ignored in what a shell starts in the background
        process.wait()
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source", nargs="?", help="without one: an RTSP server on loopback that fails now and then")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=5.0, help="decisions a second")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.source is None:
        with FailingServer() as server:
            found = watch(options.model, server.address, server, options)
    else:
        found = watch(options.model, options.source, None, options)
    memory = found["seconds_and_mb"]
    from_then = [mb for seconds, mb in memory if seconds >= 60 * FROM_MINUTE] or [memory[-1][1]]
    print(
        f"{from_then[0]} MB at minute {FROM_MINUTE:g}, {from_then[-1]} MB at minute {memory[-1][0] / 60:.0f}, "
        f"at most {max(from_then)} MB between; {len(found['faults'])} faults; {found['last_line']}; "
        f"latency {found['latency_median']} s in the middle, {found['latency_highest']} s at most"
    )


if __name__ == "__main__":
    main()
