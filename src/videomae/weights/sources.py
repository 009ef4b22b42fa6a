"""What a source means: the files behind a folder, a file, a finished run or a name on the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from videomae.errors import WeightsError
from videomae.weights.hub import HubOptions, HubUnreachableError, hub_file, is_offline, pinned, split_hub_name
from videomae.weights.shipped import DEFAULT_MODEL, resolved
from videomae.weights.tensor_files import TensorFile, is_plain_name, read_index, read_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
RECORD_FILE = "videomae.json"
PROCESSOR_FILE = "preprocessor_config.json"
ADAPTER_FILE = "adapter_config.json"  # of peft
TRAINER_FILE = "training_args.bin"  # transformers' Trainer writes it beside its weights
INDEX_SUFFIX = ".index.json"
DEEPSPEED_FILE = "mp_rank_00_model_states.pt"
DEEPSPEED_NEXT_RANK = "mp_rank_01_model_states.pt"
RUN_FOLDER = "model"  # where a finished run keeps its model
# In the order of preference: what cannot run code before what can.
SAFE_FILES = (WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX)
PICKLE_FILES = (PICKLE_FILE, PICKLE_FILE + INDEX_SUFFIX)
LONE_SUFFIXES = frozenset((".safetensors", ".bin", ".pth", ".pt", ".ckpt"))
_CHECKPOINT_FOLDER = re.compile(r"checkpoint-(\d{1,9})")


class NoWeightsError(WeightsError):
    """A folder holds nothing that looks like weights."""


@dataclass(frozen=True)
class Source:
    """The files of one model."""

    name: str
    """What the caller gave."""
    weights: tuple[Path, ...]
    """One file, or the shards."""
    config: Path | None = None
    """Its `config.json`."""
    index: Mapping[str, str] | None = None
    """File name by tensor name, where there are shards."""
    folder: Path | None = None
    """The local folder that the files make up, if they make up one."""
    repository: tuple[str, HubOptions] | None = None
    """Where on the Hub they are from."""
    notes: tuple[str, ...] = ()
    """What was chosen on the way to these files."""

    def read(self) -> TensorFile:
        """Read the tensors.

        Raises:
            WeightsError: If a file is damaged, or holds what may not be read.
        """
        return read_tensors(self.weights, where=self.index)

    def side_file(self, name: str) -> Path | None:
        """Return another file of the same folder or repository, such as `preprocessor_config.json`, if there is one.

        Raises:
            WeightsError: If the Hub has to be asked and does not answer.
        """
        if self.repository is not None:
            return hub_file(self.repository[0], name, self.repository[1])
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class Origin:
    """Files beside the weights that a model was loaded from."""

    processor: Path | None
    """Its `preprocessor_config.json`."""
    record: Path | None
    """Its `videomae.json`."""


def origin_of(source: Source) -> Origin:
    """Look for the files beside a model's weights; the model is of use without them."""
    try:
        return Origin(source.side_file(PROCESSOR_FILE), source.side_file(RECORD_FILE))
    except WeightsError:  # the Hub does not answer, although it gave the weights
        return Origin(None, None)


def find_source(
    source: str | os.PathLike[str], *, hub: HubOptions | None = None, use_safetensors: bool | None = None
) -> Source:
    """Find the files of a model.

    Args:
        source: A weights file, a folder (of a model, of a run, of DeepSpeed's), `owner/name` on the Hub, also
            with the path of one file, or `default`, see `shipped`. What exists here is never looked for on the Hub.
        hub: How a repository is read; its `subfolder` holds for folders too.
        use_safetensors: True or False: take no other kind of file; None: safetensors where there are any.

    Raises:
        WeightsError: If there is nothing there, or too much to choose from.
    """
    if source == DEFAULT_MODEL:
        return replace(_from_folder(Path(resolved(source)), use_safetensors), name=DEFAULT_MODEL)
    path = Path(source)
    try:
        if path.is_file():
            return _from_file(path)
        if path.is_dir():
            return _from_folder(path / hub.subfolder if hub else path, use_safetensors)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    name = split_hub_name(source) if isinstance(source, str) else None
    if name is None:
        raise WeightsError(
            f"{source} is no folder: give the folder of a saved model or of a finished run, a weights file, "
            "owner/name of a repository on the Hub, or default for the model that ships with videomae"
        )
    try:
        return _from_hub(*name, options=hub or HubOptions(), use_safetensors=use_safetensors)
    except WeightsError as error:
        raise WeightsError(f"{source} is no file or folder here, and: {error}") from None


def find_model_folder(path: Path) -> Path:
    """Return the model folder that a path means: itself, or the `model` folder of a finished run.

    Raises:
        WeightsError: If there is neither.
    """
    for folder in (path, path / RUN_FOLDER):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if not path.exists():
        raise WeightsError(f"{path} does not exist: give a model folder, or the folder of a finished run")
    raise WeightsError(
        f"{path} holds no {CONFIG_FILE}, nor does a folder model in it: give a model folder, or the folder of a "
        "finished run"
    )


def _from_file(path: Path) -> Source:
    if path.name.endswith(INDEX_SUFFIX):
        return _with_config(path.parent, str(path), *_shards(path))
    if path.suffix == ".json":
        raise WeightsError(f"{path} is no weights file: give its folder")
    if path.name in (WEIGHTS_FILE, PICKLE_FILE):
        return _with_config(path.parent, str(path), (path,), None)
    # Any other file stands alone: a config.json beside it may be that of another model.
    return Source(str(path), (path,))


def _with_config(folder: Path, name: str, weights: tuple[Path, ...], index: Mapping[str, str] | None) -> Source:
    config = folder / CONFIG_FILE
    return Source(name, weights, config if config.is_file() else None, index, folder)


def _from_folder(folder: Path, use_safetensors: bool | None, *, inner: bool = False) -> Source:
    names = _names(use_safetensors)
    for name in names:
        if (folder / name).is_file():
            chosen = _shards(folder / name) if name.endswith(INDEX_SUFFIX) else ((folder / name,), None)
            return _with_config(folder, str(folder), *chosen)
    if (folder / DEEPSPEED_FILE).is_file():
        if (folder / DEEPSPEED_NEXT_RANK).is_file():
            raise WeightsError(f"{folder} holds a model split over several ranks: join them with DeepSpeed first")
        return Source(str(folder), (folder / DEEPSPEED_FILE,))
    if not inner:
        for candidate in _inner_folders(folder):
            # Whatever is wrong with the newest one is an error: an older one in its place would be a surprise.
            if any((candidate / name).is_file() for name in (*names, DEEPSPEED_FILE)):
                found = _from_folder(candidate, use_safetensors, inner=True)
                return replace(found, name=str(folder), notes=(f"taken from {candidate.name} in {folder}",))
    if (folder / ADAPTER_FILE).is_file():
        raise WeightsError(
            f"{folder} holds a PEFT adapter, not a model: load the model that it was trained on, and then "
            f"peft.PeftModel.from_pretrained(model, {str(folder)!r})"
        )
    suffixes = {None: LONE_SUFFIXES, True: {".safetensors"}, False: LONE_SUFFIXES - {".safetensors"}}[use_safetensors]
    lone = sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
    if len(lone) == 1:
        note = f"the only weights file in it is {lone[0].name}"
        return replace(_from_file(lone[0]), name=str(folder), notes=(note,))
    if lone:
        shown = ", ".join(path.name for path in lone[:6]) + (", ..." if len(lone) > 6 else "")
        raise WeightsError(f"{folder} holds {len(lone)} weights files ({shown}): give one of them")
    raise NoWeightsError(
        f"{folder} has no {names[0]}: give the folder of a saved model or of a finished run, or a weights file; also "
        f"looked for were {', '.join((*names[1:], DEEPSPEED_FILE))}, and checkpoint-N folders with one of them"
    )


def _inner_folders(folder: Path) -> list[Path]:
    """Return where a folder of checkpoints keeps the newest one: what it says itself, then the highest number."""
    candidates = [folder / RUN_FOLDER]
    latest = folder / "latest"  # DeepSpeed writes the name of its newest folder there
    if latest.is_file() and latest.stat().st_size < 256:
        name = latest.read_text(encoding="utf-8", errors="replace").strip()
        if is_plain_name(name):
            candidates.append(folder / name)
    matches = [(_CHECKPOINT_FOLDER.fullmatch(path.name), path) for path in folder.iterdir()]
    numbered = [(int(match[1]), path) for match, path in matches if match]
    candidates += [path for _, path in sorted(numbered, reverse=True)]
    return [path for path in candidates if path.is_dir()]


def _shards(index: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    where = read_index(index)
    paths = tuple(index.parent / name for name in sorted(set(where.values())))
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise WeightsError(f"{index} names shards that are not there: {', '.join(missing[:6])}")
    return paths, where


def _names(use_safetensors: bool | None) -> tuple[str, ...]:
    if use_safetensors is None:
        return SAFE_FILES + PICKLE_FILES
    return SAFE_FILES if use_safetensors else PICKLE_FILES


def _from_hub(repository: str, file: str, *, options: HubOptions, use_safetensors: bool | None) -> Source:
    if file:
        path = hub_file(repository, file, options)
        if path is None:
            raise WeightsError(f"{repository} on the Hub has no {file}")
        return Source(f"{repository}/{file}", (path,))  # alone: a config.json may be that of another file
    config = hub_file(repository, CONFIG_FILE, options)
    if config is not None:
        options = pinned(options, config)
    names, unreachable = _names(use_safetensors), None
    for name in names:
        try:
            path = hub_file(repository, name, options)
        except HubUnreachableError as error:  # then the cache may still hold the next kind of file
            unreachable, options = error, replace(options, local_files_only=True)
            path = hub_file(repository, name, options)
        if path is None:
            continue
        options = pinned(options, path)
        if not name.endswith(INDEX_SUFFIX):
            return Source(repository, (path,), config, repository=(repository, options))
        where = read_index(path)
        shards = tuple(_shard_from_hub(repository, shard, options) for shard in sorted(set(where.values())))
        return Source(repository, shards, config, where, repository=(repository, options))
    if unreachable is not None:
        raise unreachable
    if is_offline(options):
        raise WeightsError(f"the cache holds no weights of {repository}, and asking the Hub is switched off")
    raise WeightsError(f"{repository} on the Hub has no {', '.join(names)}")


def _shard_from_hub(repository: str, name: str, options: HubOptions) -> Path:
    path = hub_file(repository, name, options)
    if path is None:
        raise WeightsError(f"the index of {repository} names the shard {name}, which is not there")
    return path
