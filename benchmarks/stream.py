"""Memory, latency and drops of `videomae stream` over time.

    python -m benchmarks.stream MODEL SOURCE --minutes 30 --out stream.json

Runs the command on a source, looks at the process's memory twice a minute, and writes what it found, with what the
command said at its end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def resident_mb(process_id: int) -> float:
    """Return the resident memory of a process in MB (Linux)."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the process has ended")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = [sys.executable, "-m", "videomae", "stream", options.model, options.source, "--rate", "5"]
    with (
        Path(f"{options.out}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        begin, found = time.monotonic(), []
        while time.monotonic() - begin < 60 * options.minutes and process.poll() is None:
            time.sleep(30)
            found.append((round(time.monotonic() - begin), round(resident_mb(process.pid), 1)))
            summary = Path(f"{options.out}.log").read_text(encoding="utf-8").splitlines()[-1:]
            options.out.write_text(json.dumps({"seconds_and_mb": found, "last_line": summary}, indent=1))
        process.terminate()  # not SIGINT, which is ignored in what a shell starts in the background
        process.wait()
    late = [memory for seconds, memory in found if seconds >= 120] or [0.0]
    print(f"{found[0][1]} MB at first, {late[0]} to {late[-1]} MB from minute 2 to {found[-1][0] / 60:.0f}")


if __name__ == "__main__":
    main()
