"""Tables of features, one row a vector, that grow while they are made: Parquet, or npz for those without pyarrow.

While a table is made, its rows lie in the folder `NAME.parts` as small Parquet files, each complete or not there, so
that a process that is killed loses what it had not yet written and nothing else. At the end they become the row
groups of one file. Columns: `path`, `start` and `end` in seconds, `window` and `row` (index of the window in its
video and of the vector in its window), `vector` (float32, of fixed size), and `fault`, what is wrong with the video
where it was read in part. The metadata entry `videomae` is JSON text: how the features were made, and every video.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.atomic import PARTIAL_SUFFIX, atomic_file, atomic_path
from videomae.errors import ConfigError, RunError
from videomae.wording import counted

METADATA_KEY = b"videomae"
PARTS_SUFFIX = ".parts"
UNFINISHED = f"*.parquet{PARTS_SUFFIX}"  # in such a folder: parts of what will be a part, made by another process
ROW_GROUP_BYTES = 32 * 2**20
COLUMNS = ("path", "start", "end", "window", "row", "vector", "fault")


@dataclass(frozen=True)
class FinishedVideo:
    """A video whose rows are all in the table."""

    path: str
    """As it was given."""
    windows: int
    """Number of its windows."""
    fault: str | None = None
    """Why it was not read to its end; None: it was."""


class Rows(NamedTuple):
    """Vectors of one window."""

    path: str
    window: int
    spans: NDArray[np.float64]
    """`[n, 2]`, start and end of each in seconds."""
    vectors: NDArray[np.float32]
    """`[n, D]`."""


class TableParts:
    """The parts of a table that is being made.

    Args:
        output: The table, `.parquet` or `.npz`.
        settings: How its features are made, plain JSON values.
        resume: Go on with the parts that are there, or add to a Parquet table that is complete.

    Raises:
        ConfigError: If pyarrow is missing, there are parts and `resume` is not given, or they were made otherwise.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self._pyarrow, self._parquet = arrow_modules(output)
        self.output = output
        self.folder = parts_folder(output)
        self.settings = dict(settings)
        self.finished: dict[str, FinishedVideo] = {}
        """The videos that are done, by path."""
        self.begun: dict[str, int] = {}
        """For the videos of which some windows are written, how many: the first of them, without a gap."""
        self._number = 0
        self._base: Path | None = None
        if not resume and (any(self.parts()) or any(self.folder.glob(f"{UNFINISHED}/*.parquet"))):
            raise ConfigError(
                f"{self.folder} holds an unfinished {output.name}: give --resume to continue it, or delete it"
            )
        if resume:
            self._take_up()
        self.folder.mkdir(exist_ok=True)

    def _take_up(self) -> None:
        if self.output.exists():
            if self.output.suffix != ".parquet":
                raise ConfigError(
                    f"{self.output} is complete, and rows can be added to Parquet alone: give a new name, or a name "
                    "that ends with .parquet"
                )
            self._base = self.output
            self._number = self._take_metadata(self.output)
        for stale in self.folder.glob(f"*{PARTIAL_SUFFIX}"):
            stale.unlink()
        # At or below the table's number: the process was killed after its parts had become the table.
        for part in [one for one in self.parts() if _number(one) <= self._number]:
            part.unlink()
        for folder in [one for one in self.folder.glob(UNFINISHED) if _number(one) <= self._number]:
            shutil.rmtree(folder)
        written: dict[str, int] = {}
        for part in self.parts():
            self._take_metadata(part)
            table = self._parquet.read_table(part, columns=["path", "window"])
            for path, window in zip(table["path"].to_pylist(), table["window"].to_pylist(), strict=True):
                written[path] = max(written.get(path, 0), window + 1)
        self.begun = {path: count for path, count in written.items() if path not in self.finished}
        self._number = max([self._number, *map(_number, (*self.parts(), *self.folder.glob(UNFINISHED)))])

    def _take_metadata(self, file: Path) -> int:
        """Take the videos of a table with the same settings; returns how many parts it was made of."""
        metadata = table_metadata(file)
        other = {
            name: (metadata["settings"].get(name), value)
            for name, value in self.settings.items()
            if name != "version" and metadata["settings"].get(name) != value
        }
        for name, (before, now) in other.items():
            raise ConfigError(
                f"{file} was made with {name} {before}, and now {name} is {now}: give the same settings with "
                "--resume, or another name for the output"
            )
        self.finished.update((one["path"], FinishedVideo(**one)) for one in metadata["videos"])
        return int(metadata.get("parts", 0))

    def parts(self) -> list[Path]:
        """Return the parts, in order."""
        return sorted(self.folder.glob("*.parquet"))

    def add(self, rows: Sequence[Rows], finished: Sequence[FinishedVideo]) -> None:
        """Write a part: rows, and the videos whose last rows are among them or before.

        Raises:
            RunError: If it cannot be written; the parts before it stay.
        """
        part = self.reserve()
        table = self._table(rows).replace_schema_metadata(self._metadata(finished))
        try:
            with atomic_path(part) as partial:
                self._parquet.write_table(table, partial)
        except OSError as error:
            raise self._cannot_write(error) from None
        self.finished.update((one.path, one) for one in finished)

    def reserve(self) -> Path:
        """Return where the next part goes."""
        self._number += 1
        return self.folder / f"{self._number:08d}.parquet"

    def take_in(self, part: Path) -> None:
        """Count a table with the same settings, which another process has written at a place from `reserve`.

        Raises:
            ConfigError: If it was made otherwise.
        """
        self._take_metadata(part)

    def unfinished(self) -> dict[str, Path]:
        """Return, for the videos that other processes have begun, where their parts go when they are complete."""
        found = {}
        for part in sorted(self.folder.glob(f"{UNFINISHED}/*.parquet")):
            for path in self._parquet.read_table(part, columns=["path"])["path"].slice(0, 1).to_pylist():
                found[path] = part.parent.with_suffix("")
        return found

    def finish(self) -> None:
        """Put the parts together into the table, and remove them.

        Raises:
            RunError: If it cannot be written; the parts stay.
        """
        try:
            if self.output.suffix == ".npz":
                self._write_npz()
            else:
                self._write_parquet()
            shutil.rmtree(self.folder)
        except OSError as error:
            raise self._cannot_write(error) from None

    def discard_if_empty(self) -> None:
        """Remove the folder if no part is in it."""
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _cannot_write(self, error: OSError) -> RunError:
        return RunError(
            f"{self.output} cannot be written ({error.strerror or error}): free space, then give --resume; "
            f"what is done is kept in {self.folder}: {counted(len(self.finished), 'video')}"
        )

    def _metadata(self, videos: Iterable[FinishedVideo], *, parts: int = 0) -> dict[bytes, bytes]:
        """Return the entry of a part, or of the table that `parts` of them became."""
        values = {"settings": self.settings, "parts": parts, "videos": [asdict(one) for one in videos]}
        return {METADATA_KEY: json.dumps(values).encode()}

    def _table(self, rows: Sequence[Rows]) -> Any:
        pa = self._pyarrow
        counts = [len(one.vectors) for one in rows]
        width = rows[0].vectors.shape[1] if rows else int(self.settings["width"])
        vectors = np.concatenate([one.vectors for one in rows]) if rows else np.empty((0, width), np.float32)
        spans = np.concatenate([one.spans for one in rows]) if rows else np.empty((0, 2))
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
        paths = [as_text(one.path) for one, count in zip(rows, counts, strict=True) for _ in range(count)]
        numbers = [np.arange(count) for count in counts] or [np.empty(0, np.int64)]
        return pa.table({
            "path": pa.array(paths, pa.string()),
            "start": pa.array(spans[:, 0], pa.float64()),
            "end": pa.array(spans[:, 1], pa.float64()),
            "window": pa.array(np.repeat([one.window for one in rows], counts).astype(np.int32)),
            "row": pa.array(np.concatenate(numbers).astype(np.int32)),
            "vector": pa.FixedSizeListArray.from_arrays(flat, width),
        })  # fmt: skip

    def _batches(self) -> Iterator[Any]:
        """Yield the rows of all finished videos, with their faults, as tables of some megabytes."""
        pa = self._pyarrow
        per_batch = max(1, ROW_GROUP_BYTES // (4 * int(self.settings["width"])))
        held: list[Any] = []
        for file in [*([self._base] if self._base else []), *self.parts()]:
            with self._parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(batch_size=per_batch, columns=list(COLUMNS[:-1])):
                    faults = [self.finished[path].fault for path in batch.column("path").to_pylist()]
                    held.append(pa.table(batch).append_column("fault", pa.array(faults, pa.string())))
                    if sum(map(len, held)) >= per_batch:
                        yield pa.concat_tables(held)
                        held = []
        if held:
            yield pa.concat_tables(held)

    def _write_parquet(self) -> None:
        schema = self._table([]).append_column("fault", self._pyarrow.array([], self._pyarrow.string())).schema
        schema = schema.with_metadata(self._metadata(self.finished.values(), parts=self._number))
        with atomic_path(self.output) as partial, self._parquet.ParquetWriter(partial, schema) as writer:
            for table in self._batches():
                writer.write_table(table.replace_schema_metadata(schema.metadata))

    def _write_npz(self) -> None:
        """Write each column by itself, so that no more than a part of it is in memory."""
        total = sum(self._parquet.read_metadata(part).num_rows for part in self.parts())
        longest = max((len(as_text(path)) for path in self.finished), default=1)
        longest_fault = max((len(one.fault or "") for one in self.finished.values()), default=1) or 1
        kinds: dict[str, tuple[str, tuple[int, ...]]] = {
            "path": (f"<U{longest}", (total,)),
            "start": ("<f8", (total,)),
            "end": ("<f8", (total,)),
            "window": ("<i4", (total,)),
            "row": ("<i4", (total,)),
            "vector": ("<f4", (total, int(self.settings["width"]))),
            "fault": (f"<U{longest_fault}", (total,)),
        }
        with atomic_file(self.output) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, (kind, shape) in kinds.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as column:
                    header = {"descr": kind, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_2_0(column, header)
                    for table in self._batches():
                        column.write(_column(table, name).astype(kind).tobytes())
            metadata = self._metadata(self.finished.values())[METADATA_KEY].decode()
            with archive.open("videomae.npy", "w") as column:
                np.lib.format.write_array(column, np.array(metadata))


def _column(table: Any, name: str) -> NDArray[Any]:
    column = table[name].combine_chunks()
    if name == "vector":
        return np.asarray(column.flatten())
    return np.array([one or "" for one in column.to_pylist()]) if name in ("path", "fault") else np.asarray(column)


def table_metadata(file: Path) -> dict[str, Any]:
    """Return the settings and the videos of a table or a part of one.

    Raises:
        ConfigError: If it is no table of features.
    """
    pyarrow, parquet = arrow_modules(file)
    try:
        metadata = parquet.read_schema(file).metadata or {}
        found: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    except (OSError, pyarrow.ArrowException, KeyError, ValueError) as error:
        what = "it has no entry of videomae" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ConfigError(
            f"{file} is no table of features ({what}): give one that videomae features --out NAME.parquet wrote"
        ) from None
    return found


def _number(part: Path) -> int:
    return int(part.name.partition(".")[0])


def parts_folder(output: Path) -> Path:
    """Return where the rows of a table are until it is complete."""
    return output.with_name(output.name + PARTS_SUFFIX)


def arrow_modules(file: Path) -> tuple[Any, Any]:
    """Import pyarrow and its Parquet module for a file.

    Raises:
        ConfigError: If pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{file} needs pyarrow, which is not installed: pip install pyarrow, or write a .safetensors file"
        ) from None
    return pyarrow, pyarrow.parquet


def as_text(path: str) -> str:
    """Return a path as text; bytes that are none, which Python keeps as surrogates, become question marks."""
    return path.encode("utf-8", "replace").decode("utf-8")
