"""Print the tables of docs/monitor.md: `python -m experiments.monitor.table planted.json healthy.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def planted_rows(results: list[dict[str, Any]]) -> list[str]:
    """Return a row for each planted failure."""
    rows = ["| planted | videos | should say | first said after step, of | with it |", "|---|---|---|---|---|"]
    for one in results:
        said = dict(one["alarms"])
        step = said.pop(one["planted"], None)
        when = "**missed**" if step is None else f"{step}, of {one['steps']:,}"
        others = ", ".join(f"{name} ({first})" for name, first in sorted(said.items(), key=lambda pair: pair[1]))
        rows.append(f"| {one['name']} | {one['videos']} | {one['planted']} | {when} | {others or 'nothing'} |")
    return rows


def healthy_rows(results: list[dict[str, Any]]) -> list[str]:
    """Return a row for each healthy way of training."""
    rows = ["| way of training | videos | final loss over the trivial one's | false alarms |", "|---|---|---|---|"]
    for name, videos in dict.fromkeys((one["name"], one["videos"]) for one in results):
        group = [one for one in results if (one["name"], one["videos"]) == (name, videos)]
        losses = ", ".join(f"{one['loss']:.3f}" for one in group)
        alarms = ", ".join(f"{alarm} ({step})" for one in group for alarm, step in one["alarms"].items())
        rows.append(f"| {name} | {videos} | {losses} | {alarms or 'none'} |")
    return rows


def main() -> None:
    """Print both tables and the counts."""
    planted, healthy = (
        [
            one
            for _, one in sorted(json.loads(Path(path).read_text(encoding="utf-8")).items(), key=lambda p: int(p[0]))
        ]
        for path in sys.argv[1:]
    )
    early = [one for one in planted if one["alarms"].get(one["planted"], one["steps"]) < 0.1 * one["steps"]]
    named = sum(bool(one["alarms"]) for one in planted)
    false = sum(len(one["alarms"]) for one in healthy)
    print(f"planted: {len(early)} of {len(planted)} named before a tenth of the budget, {named} with some alarm")
    print(f"healthy: {false} alarms in {len(healthy)} runs")
    shares = sorted(one["monitor_seconds"] / one["cpu_seconds"] for one in healthy)
    print(f"cost of healthy runs: {shares[0]:.2%} to {shares[-1]:.2%}, median {shares[len(shares) // 2]:.2%}")
    print("\n".join(["", *planted_rows(planted), "", *healthy_rows(healthy)]))


if __name__ == "__main__":
    main()
