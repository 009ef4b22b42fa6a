"""Turn raw predictions of `run.py` into accuracies with intervals: `python -m experiments.learning.analyse DIR...`.

The first DIR holds `labels.json` with the labels of the test clips of each set and fold, each DIR `results.json` of
`run.py main` or `seed`, of another pre-training. Several are averaged clip by clip; what not all have is left out.
In each fold every arm is at the rate that was best on its validation clips. Intervals are 95 % percentile bootstrap:
over the test clips of the motion set (all seeds of a clip together), over groups for the real sets. A difference is
paired by clip.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
Cell = dict[str, NDArray[np.float64]]


def main() -> None:
    """Print the table and write `summary.json` beside the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+")
    folders = parser.parse_args().folders
    runs = [json.loads((folder / "results.json").read_text()) for folder in folders]
    truth = json.loads((folders[0] / "labels.json").read_text())
    table: list[dict[str, Any]] = []
    kinds = [("fine-tuning", [run["finetuning"] for run in runs])]
    for probe in sorted({row["probe"] for row in runs[0]["probes"]}):
        for layer in sorted({str(row["layer"]) for row in runs[0]["probes"]}):
            found = [
                [row for row in run["probes"] if (row["probe"], str(row["layer"])) == (probe, layer)] for run in runs
            ]
            kinds.append((f"{probe}, layer {layer}", found))
    for kind, rows in kinds:
        for name in ("motion", "fight", "drone_infrared"):
            for count in (5, 20, "all"):
                chosen = [[row for row in one if (row["set"], row["per_class"]) == (name, count)] for one in rows]
                if all(chosen):
                    table.append(cell(kind, name, count, chosen, truth[name]))
    if len(folders) == 1:
        (folders[0] / "summary.json").write_text(json.dumps(table, indent=1))
    for line in table:
        print(json.dumps(line))


def cell(
    kind: str, name: str, count: int | str, runs: list[list[dict[str, Any]]], truth: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return accuracies of the arms that all runs have, and the differences from the pre-trained one."""
    arms: dict[str, dict[int, NDArray[np.float64]]] = {}
    for arm in dict.fromkeys(row["arm"] for row in runs[0]):
        found = [correct(rows, arm, truth) for rows in runs]
        if all(found):
            arms[arm] = {
                fold: np.concatenate([one[fold] for one in found])
                for fold in found[0]
                if all(fold in one for one in found)
            }
    folds = set.intersection(*(set(one) for one in arms.values()))
    rng = np.random.default_rng(0)
    groups = np.concatenate([np.array(truth[fold]["groups"]) for fold in sorted(folds)])
    stacked = {arm: np.concatenate([one[fold].mean(axis=0) for fold in sorted(folds)]) for arm, one in arms.items()}
    _, numbers = np.unique(groups, return_inverse=True)
    sizes = np.bincount(numbers).astype(float)
    picks = rng.integers(len(sizes), size=(DRAWS, len(sizes)))

    def interval(values: NDArray[np.float64]) -> list[float]:
        sums = np.bincount(numbers, values)
        means = sums[picks].sum(1) / sizes[picks].sum(1)
        return [
            round(100 * float(values.mean()), 1),
            *(round(100 * float(q), 1) for q in np.percentile(means, [2.5, 97.5])),
        ]

    line: dict[str, Any] = {
        "kind": kind,
        "set": name,
        "labels_per_class": count,
        "test_clips": len(groups),
        "groups": len(sizes),
        "folds": len(folds),
    }
    for arm, values in stacked.items():
        line[arm] = interval(values)
        per_seed = [one.mean() for fold in sorted(folds) for one in arms[arm][fold]] if len(folds) == 1 else []
        if per_seed:
            line[f"{arm}_seeds"] = [round(100 * float(one), 1) for one in per_seed]
        if arm != "pretrained":
            line[f"pretrained_minus_{arm}"] = interval(stacked["pretrained"] - values)
    return line


def correct(rows: list[dict[str, Any]], arm: str, truth: list[dict[str, Any]]) -> dict[int, NDArray[np.float64]]:
    """Return for each fold `[seeds, clips]` 0/1 of the rate chosen by validation."""
    by_fold: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["arm"] == arm:
            by_fold[row["fold"]].append(row)
    out = {}
    for fold, mine in by_fold.items():
        labels = np.array(truth[fold]["labels"])
        if "lr" in mine[0] and any(row["lr"] != mine[0]["lr"] for row in mine):
            first = [row for row in mine if row["seed"] == mine[0]["seed"]]
            best = max(first, key=lambda row: row["val"])
            mine = [row for row in mine if row["seed"] == best["seed"] and row is best] + [
                row for row in mine if row["seed"] != best["seed"]
            ]
        out[fold] = np.array([np.array(row["predictions"]) == labels for row in mine], dtype=float)
    return out


if __name__ == "__main__":
    main()
