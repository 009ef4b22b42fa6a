"""Tables of docs/small-data.md and docs/results.md: `python -m experiments.ablations.table RESULTS [DOWNSTREAM]`.

Either is the folder of the JSON files or a packed file, `experiments/results/ablations/*.jsonl`.

Accuracies are means over seeds or folds. Differences are paired: by test clip with the seeds averaged on the motion
set, by recording on the real ones. Intervals are 95 % bootstrap.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ablations.held_out import unpacked
from experiments.ablations.ways import WAYS
from videomae.evaluation.uncertainty import group_draws, percentiles

Rows = dict[str, dict[int, dict[str, Any]]]
"""What a file holds, by way or arm and by seed or fold."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("downstream", type=Path, nargs="?")
    options = parser.parse_args()
    ablations(options.results)
    if options.downstream is not None:
        downstream(options.downstream)


def ablations(folder: Path) -> None:
    """Print a row for each way of pre-training."""
    rows: Rows = defaultdict(dict)
    for row in read(folder):
        rows[row["name"]][row["seed"]] = row
    print("| way | seeds | views | held-out loss | linear | minus base | k-NN |\n|---|---|---|---|---|---|---|")
    for name in WAYS:
        if not rows[name]:
            continue
        found = [rows[name][seed] for seed in sorted(rows[name])]
        shared = [seed for seed in rows[name] if seed in rows["base"]]
        own, base = (
            np.mean([rows[one][seed]["linear"]["correct"] for seed in shared], axis=0) for one in (name, "base")
        )
        print(
            f"| {name} | {len(found)} | {np.mean([row['views'] for row in found]):,.0f} "
            f"| {spread([row['held_out_loss'] for row in found])} "
            f"| {100 * np.mean([row['linear']['accuracy'] for row in found]):.1f} "
            f"| {difference(own, base)} "
            f"| {100 * np.mean([row['neighbours']['accuracy'] for row in found]):.1f} |"
        )


def read(source: Path) -> list[dict[str, Any]]:
    """Read a packed file or the files of a folder."""
    if source.is_file():
        return [unpacked(json.loads(line)) for line in source.read_text().splitlines()]
    return [json.loads(file.read_text()) for file in sorted(source.glob("*.json"))]


def spread(values: Sequence[float | None]) -> str:
    """Return mean, lowest and highest; nothing where there is no such number."""
    known = [one for one in values if one is not None]
    if len(known) < len(values):
        return ""
    return f"{np.mean(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def difference(own: np.ndarray, other: np.ndarray, groups: np.ndarray | None = None) -> str:
    """Return the mean difference in points with its interval."""
    if own is other or not (own - other).any():
        return "0"
    groups = np.arange(len(own)) if groups is None else groups
    interval = percentiles(group_draws((own - other)[None], groups, rng=np.random.default_rng(0))[:, 0])
    return f"{100 * (own - other).mean():+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def downstream(folder: Path) -> None:
    """Print a row for each arm, set and fraction of the labels, with differences to the pre-trained one."""
    rows: dict[tuple[str, float, str], Rows] = defaultdict(lambda: defaultdict(dict))
    for row in read(folder):
        rows[row["set"], row["fraction"], row["pooling"]][row["arm"]][row["fold"]] = row
    for key in ("", "linear"):
        print(f"\n{key or 'fine-tuned'}\n\n| set | labels | pooling | arm | folds | accuracy | procedural minus it |")
        print("|---|---|---|---|---|---|---|")
        for (name, fraction, pooling), arms in sorted(rows.items()):
            for arm, folds in arms.items():
                shared = sorted(fold for fold in folds if fold in arms["procedural"])
                correct = [part(folds[fold], key) for fold in sorted(folds)]
                if any(one is None for one in correct):
                    continue
                pairs = [(part(arms["procedural"][fold], key), part(folds[fold], key)) for fold in shared]
                ours, theirs = joined([pair[0] for pair in pairs], name), joined([pair[1] for pair in pairs], name)
                mean = 100 * np.mean([np.mean(one) for one in correct if one is not None])
                print(
                    f"| {name} | {fraction:.0%} | {pooling} | {arm} | {len(folds)} | {mean:.1f} "
                    f"| {difference(ours, theirs) if arm != 'procedural' else ''} |"
                )


def part(row: dict[str, Any], key: str) -> list[int] | None:
    """Return which test clips were right: of fine-tuning, or of a probe where there is one."""
    if not key:
        return list(row["correct"])
    return list(row["probes"][key]["correct"]) if "probes" in row else None


def joined(folds: Sequence[list[int] | None], name: str) -> np.ndarray:
    """Average seeds of the motion set by clip; put the clips of different folds after one another."""
    known = [one for one in folds if one is not None]
    return np.mean(known, axis=0) if name == "motion" else np.concatenate(known)


if __name__ == "__main__":
    main()
