"""Tables of features as an index: which rows are nearest to a vector.

Vectors are compared by cosine after the mean of the index is subtracted: features of one encoder all point roughly
one way, and what tells them apart is the rest. Up to `EXACT_ROWS` rows every one of them is compared. Beyond that an
HNSW graph (Malkov and Yashunin 2016, by usearch) finds most of the nearest without looking at all, is built once and
kept beside the table; without usearch installed all rows are compared, which is exact and slower.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.atomic import atomic_path
from videomae.errors import ConfigError
from videomae.inference.feature_table import arrow_modules, parts_folder, table_metadata

EXACT_ROWS = 100_000
GRAPH_SUFFIX = ".usearch"
GRAPH_EXPANSION = 256  # rows that a search in the graph looks at: more are slower and miss less
BLOCK_ROWS = 65_536

FloatArray = NDArray[np.float32]
PER_CLIP = ("clip", "attention")


class Nearest(NamedTuple):
    """Rows of an index, nearest first."""

    rows: NDArray[np.int64]
    """`[k]`."""
    similarities: FloatArray
    """`[k]`, cosines in [-1, 1]."""


@dataclass(frozen=True)
class FeatureIndex:
    """Rows of tables of features, all made in the same way."""

    paths: tuple[str, ...]
    """The videos."""
    video: NDArray[np.int32]
    """`[n]`, index into `paths` of each row."""
    starts: NDArray[np.float64]
    """`[n]`, seconds."""
    ends: NDArray[np.float64]
    """`[n]`, seconds."""
    vectors: FloatArray
    """`[n, D]`, centred and of unit length."""
    mean: FloatArray
    """`[D]`, what was subtracted."""
    settings: dict[str, Any]
    """How the features were made."""
    graph: Any = None
    """Of usearch, where there are many rows."""
    unfinished: tuple[str, ...] = ()
    """Tables that are still being made, or were stopped."""

    def nearest(self, query: FloatArray, count: int) -> Nearest:
        """Find the rows that are most like any of several vectors.

        Args:
            query: `[q, D]`, features as in the tables.
            count: How many rows.
        """
        unit = _unit(query - self.mean)
        count = min(count, len(self.vectors))
        if self.graph is None:
            best = np.concatenate([
                (self.vectors[start : start + BLOCK_ROWS] @ unit.T).max(axis=1)
                for start in range(0, len(self.vectors), BLOCK_ROWS)
            ])  # fmt: skip
            rows = np.argpartition(-best, count - 1)[:count]
            rows = rows[np.lexsort((rows, -best[rows]))]  # equal ones in the order of the table
            return Nearest(rows, best[rows])
        found = self.graph.search(unit, count)
        rows = np.unique(np.asarray(found.keys, np.int64).reshape(-1))
        best = (self.vectors[rows] @ unit.T).max(axis=1)  # exact, of the rows found
        order = np.argsort(-best, kind="stable")[:count]
        return Nearest(rows[order], best[order])


def open_index(tables: Sequence[Path], *, exact: bool = False) -> FeatureIndex:
    """Read tables of features as one index.

    Args:
        tables: Parquet files of `videomae features`, such as the shards of one collection; an unfinished one is read
            as far as it is.
        exact: Compare all rows however many there are.

    Raises:
        ConfigError: If one is missing, of another kind, or made in another way than the first.
    """
    files = [file for table in tables for file in _files(table)]
    settings = _common_settings(files)
    _, parquet = arrow_modules(files[0])
    names: dict[str, int] = {}
    video, starts, ends, vectors = [], [], [], []
    for file in files:
        table = parquet.read_table(file, columns=["path", "start", "end", "vector"])
        numbers = [names.setdefault(path, len(names)) for path in table["path"].to_pylist()]
        video.append(np.array(numbers, np.int32))
        starts.append(np.asarray(table["start"]))
        ends.append(np.asarray(table["end"]))
        flat = np.asarray(table["vector"].combine_chunks().flatten())
        vectors.append(flat.reshape(-1, int(settings["width"])))
    found = np.concatenate(vectors)
    if not len(found):
        raise ConfigError(f"{tables[0]} holds no rows: give videos to videomae features first")
    mean = found.mean(axis=0)
    unit = _unit(found - mean)
    graph = None if exact or len(unit) <= EXACT_ROWS else _graph(unit, files)
    places = np.concatenate(video), np.concatenate(starts), np.concatenate(ends)
    unfinished = tuple(str(table) for table in tables if not table.exists())
    return FeatureIndex(tuple(names), *places, unit, mean, settings, graph, unfinished)


def _files(table: Path) -> list[Path]:
    if table.is_file():
        return [table]
    folder = table if table.is_dir() else parts_folder(table)
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise ConfigError(
            f"{table} is no index: make one with videomae features VIDEOS --step 1 --out "
            f"{table.with_suffix('.parquet')}"
        )
    if folder != table:
        warnings.warn(
            f"{table} is unfinished: searching what is done; continue with --resume", UserWarning, stacklevel=3
        )
    return files


def _common_settings(files: Sequence[Path]) -> dict[str, Any]:
    first: dict[str, Any] = table_metadata(files[0])["settings"]
    if first["pooling"] not in PER_CLIP:
        raise ConfigError(
            f"{files[0]} holds a vector for each {first['pooling']}, and search compares whole windows: make the "
            f"table with --pool {' or '.join(PER_CLIP)}"
        )
    for file in files[1:]:
        other = table_metadata(file)["settings"]
        for name in ("weights", "pooling", "clip", "window_seconds", "step_seconds", "step_frames"):
            if other[name] != first[name]:
                raise ConfigError(
                    f"{file} and {files[0]} cannot be searched together: {name} is {other[name]} and {first[name]}; "
                    "make both tables in the same way"
                )
    return first


def _graph(unit: FloatArray, files: Sequence[Path]) -> Any:
    """Build the graph of many rows, or read the one that is kept beside the table."""
    try:
        from usearch.index import Index
    except ImportError:
        warnings.warn(
            f"the index has {len(unit):,} rows and usearch is not installed: all are compared, which takes longer; "
            "pip install usearch",
            UserWarning,
            stacklevel=3,
        )
        return None
    graph = Index(ndim=unit.shape[1], metric="ip", dtype="f32", expansion_search=GRAPH_EXPANSION)
    kept = files[0].with_name(files[0].name + GRAPH_SUFFIX) if len(files) == 1 else None
    if kept is not None and kept.is_file() and kept.stat().st_mtime_ns >= files[0].stat().st_mtime_ns:
        with contextlib.suppress(Exception):  # a damaged one is built again; usearch raises errors of many kinds
            graph.load(str(kept))
            if len(graph) == len(unit):
                return graph
        graph = Index(ndim=unit.shape[1], metric="ip", dtype="f32", expansion_search=GRAPH_EXPANSION)
    graph.add(np.arange(len(unit)), unit)
    if kept is not None:
        with contextlib.suppress(OSError), atomic_path(kept) as partial:  # a folder that is read only
            graph.save(str(partial))
    return graph


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: FloatArray = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return result
