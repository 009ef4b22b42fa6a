"""Checkpoints of a sharded run: a folder for each saved step, in which every process writes its part.

The folder is written beside its place while training goes on, and takes its name when all parts are on the disk. So
it is whole or absent, as the one file of other runs; `engine/checkpoint.py` says which of them are there, which is
intact and which are deleted. The parts are torch's distributed checkpoint, which another number of processes reads.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from videomae.atomic import partial_path
from videomae.engine.checkpoint import commit_folder, folder_state, prune, step_path
from videomae.engine.distributed import Ranks
from videomae.errors import CheckpointError


class ShardedCheckpoints:
    """Writes the checkpoints of a run, one at a time, while it goes on.

    Every process calls every method.

    Args:
        folder: Of the checkpoints.
        ranks: The processes.
        keep: Newest checkpoints that stay, at least 1.
    """

    def __init__(self, folder: Path, ranks: Ranks, *, keep: int) -> None:
        self._folder, self._ranks, self._keep = folder, ranks, keep
        # The writing threads agree in a group of their own, beside the main threads.
        self._group = dist.new_group(backend="gloo")
        self._saving: tuple[int, Future[Any]] | None = None

    def save(
        self, model: nn.Module, optimizer: Any, *, step: int, plain: dict[str, Any], ema: dict[str, Any] | None = None
    ) -> None:
        """Copy the state to memory and start to write it.

        Args:
            model: Sharded.
            optimizer: Of its parameters.
            step: Optimizer steps done.
            plain: The rest of the state: values that JSON can hold.
            ema: Averaged weights by name.

        Raises:
            CheckpointError: If this checkpoint cannot be begun, or the one before it could not be written.
        """
        self.finish()
        path = step_path(self._folder, step, sharded=True)
        partial = partial_path(path)

        def prepare() -> None:
            try:
                for stale in self._folder.glob(partial_path(Path("checkpoint-*")).name):
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
                partial.mkdir(parents=True)
            except OSError as error:
                raise _cannot_write(path, error) from error

        self._ranks.first(prepare)
        of_model, of_optimizer = get_state_dict(model, optimizer)
        state = {"model": of_model, "optimizer": of_optimizer, "ema": ema or {}}
        writing = async_save(state, storage_writer=FileSystemWriter(partial), process_group=self._group)
        assert isinstance(writing, Future)
        if self._ranks.is_first:
            # The first process's thread ends after all others have written: torch gathers their results there.
            writing = _then(writing, lambda: self._commit(path, step, plain))
        self._saving = (step, writing)

    def finish(self) -> None:
        """Wait for a checkpoint that is being written.

        Raises:
            CheckpointError: In every process, if one of them could not write.
        """
        if self._saving is None:
            return
        step, writing = self._saving
        self._saving = None
        reason = None
        try:
            writing.result()
        except CheckpointException as error:  # what happened in any process, the disk's errors among it
            first, _ = next(iter(error.failures.values()))
            reason = " ".join(str(first).split())
        except OSError as error:  # of giving the folder its name
            reason = str(error.strerror or error)
        reason = next((one for one in self._ranks.gather(reason) if one is not None), None)
        if reason is not None:
            raise _cannot_write(step_path(self._folder, step, sharded=True), reason)

    def _commit(self, path: Path, step: int, plain: dict[str, Any]) -> None:
        commit_folder(partial_path(path), path, {**plain, "step": step})
        prune(self._folder, step=step, keep=self._keep)


def load_sharded(path: Path, model: nn.Module, optimizer: Any, ema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint into a model and its optimizer, on any number of processes; all call this.

    Args:
        path: A folder that `ShardedCheckpoints` wrote, proved intact by `latest_checkpoint`.
        model: Sharded.
        optimizer: Of its parameters.
        ema: Averaged weights by name, which are written over.

    Returns:
        The rest of the state, with `step`.

    Raises:
        CheckpointError: If it does not fit.
    """
    of_model, of_optimizer = get_state_dict(model, optimizer)
    state = {"model": of_model, "optimizer": of_optimizer, "ema": ema or {}}
    try:
        load(state, storage_reader=FileSystemReader(path))
    except CheckpointException as error:  # what happened in any process
        first, _ = next(iter(error.failures.values()))
        reason = " ".join(str(first).split())
        raise CheckpointError(f"{path} does not fit this recipe's model: {reason}") from error
    set_state_dict(model, optimizer, model_state_dict=of_model, optim_state_dict=of_optimizer)
    return folder_state(path)


def _then(writing: Future[Any], function: Callable[[], None]) -> Future[Any]:
    """Return a future that is done when another is and a function has been called after it, in its thread."""
    done: Future[Any] = Future()

    def call(finished: Future[Any]) -> None:
        try:
            finished.result()
            function()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    writing.add_done_callback(call)
    return done


def _cannot_write(path: Path, error: OSError | str) -> CheckpointError:
    reason = (error.strerror or error) if isinstance(error, OSError) else error
    return CheckpointError(
        f"checkpoint {path} cannot be written ({reason}); earlier checkpoints in the folder are intact: free space "
        "or give another output folder, then resume"
    )
