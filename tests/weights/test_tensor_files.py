"""Weights files of every kind are known by their content, read without running it, and refused with the reason."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import get_safe_globals, safe_globals

from videomae.errors import WeightsError
from videomae.weights.json_files import printable_name, read_json
from videomae.weights.tensor_files import is_plain_name, read_index, read_tensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.arange(3.0, dtype=torch.bfloat16)}


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Tell whether two states hold the same names, dtypes and values, in the same order."""
    return list(found) == list(expected) and all(
        one.dtype == expected[name].dtype and torch.equal(one, expected[name]) for name, one in found.items()
    )


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.pth", "no_suffix"])
def test_safetensors_are_known_by_content(tmp_path: Path, name: str) -> None:
    save_file(dict(sorted(STATE.items())), tmp_path / name)
    assert same(dict(sorted(read_tensors([tmp_path / name]).tensors.items())), dict(sorted(STATE.items())))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.bin"])
def test_pickled_files_of_both_generations_are_read(tmp_path: Path, name: str, new: bool) -> None:
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=new)
    assert same(read_tensors([tmp_path / name]).tensors, STATE)


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (STATE, ""),
        ({"model": STATE, "epoch": 3}, "model"),
        ({"module": STATE, "ds_version": "0.5"}, "module"),
        ({"state_dict": STATE, "meta": {"seed": 1}}, "state_dict"),
        ({"state": {"model": STATE, "optimizer": {}}, "step": 1}, "state.model"),
        ({"model": STATE, "module": {"b": torch.zeros(1)}, "model_ema": {"c": torch.zeros(1)}}, "model"),
    ],
    ids=["raw", "model", "module", "state_dict", "ours", "several"],
)
def test_the_network_is_found_in_its_container(tmp_path: Path, content: object, container: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    found = read_tensors([tmp_path / "x.pth"])
    assert same(found.tensors, STATE)
    assert found.container == container


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    torch.save({**STATE, "epoch": 3, "name": "x"}, tmp_path / "x.pth")
    found = read_tensors([tmp_path / "x.pth"])
    assert found.others == ("epoch", "name")
    assert found.notes == {"name": "x"}


def test_the_arguments_and_numbers_of_the_original_programs_are_read(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=1.5e-4, model="pretrain_videomae_base_patch16_224", window_size=(8, 14, 14))
    numbers = {"acc": np.float64(81.5), "count": np.int64(3), "best": np.float32(1.0), "flag": np.bool_(True)}
    torch.save({"model": STATE, "args": args, "epoch": "best", **numbers}, tmp_path / "x.pth")
    before = set(get_safe_globals())  # torch keeps them in no order
    assert same(read_tensors([tmp_path / "x.pth"]).tensors, STATE)
    assert set(get_safe_globals()) == before, "what is allowed here must not stay allowed for the whole program"


def test_numpy_numbers_of_the_older_generation_are_read(tmp_path: Path) -> None:
    content = pickle.dumps({"acc": np.float64(81.5)}, protocol=2)
    assert b"numpy._core.multiarray" in content
    torch.save({"model": STATE, "acc": np.float64(81.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as old, zipfile.ZipFile(tmp_path / "old.pth", "w") as renamed:
        for entry in old.infolist():
            data = old.read(entry).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            renamed.writestr(entry.filename, data)
    assert same(read_tensors([tmp_path / "old.pth"]).tensors, STATE)


def test_what_the_program_allowed_itself_stays_allowed(tmp_path: Path) -> None:
    torch.save({"model": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "x.pth")
    with safe_globals([argparse.Namespace]):
        read_tensors([tmp_path / "x.pth"])
        assert argparse.Namespace in get_safe_globals()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside", "alone"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, place: str, new: bool) -> None:
    marker = Marker(tmp_path / "ran")
    content: Any = {"beside": {"model": STATE, "args": marker}, "inside": {**STATE, "x": marker}, "alone": marker}[
        place
    ]
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(
        WeightsError, match=r"x\.pth would run (posix|nt)\.mkdir when read, so it was not read"
    ) as caught:
        read_tensors([path])
    assert "\n" not in str(caught.value)
    assert not marker.path.exists()
    torch.load(path, weights_only=False)
    assert marker.path.exists(), "the file is harmless, so that this test proves nothing"


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    torch.save({"model": STATE, "config": Path("x")}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"would run pathlib\..*Path when read, .* save the state dict alone"):
        read_tensors([tmp_path / "x.pth"])


def test_tensors_are_mapped_not_read(tmp_path: Path) -> None:
    values = torch.full((64,), 1.5)
    torch.save({"model": {"a": values}}, tmp_path / "x.pth")
    save_file({"a": values}, tmp_path / "x.safetensors")
    for name in ("x.pth", "x.safetensors"):
        tensor = read_tensors([tmp_path / name]).tensors["a"]
        content = (tmp_path / name).read_bytes()
        with (tmp_path / name).open("rb+") as stream:  # in place: a new file would leave the old one mapped
            stream.write(content.replace(values.numpy().tobytes(), (2 * values).numpy().tobytes()))
        assert tensor.tolist() == [3.0] * 64, f"{name} was read before anybody looked at the tensor"


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"]" * 10**6)
    with pytest.raises(WeightsError, match=r"is a compressed archive, which torch\.save does not write"):
        read_tensors([path])


def test_a_large_pickle_beside_the_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"model": STATE, "log": list(range(10**6, 4 * 10**6))}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="has a pickle of more than 6291456 bytes besides its tensors: refused"):
        read_tensors([tmp_path / "x.pth"])


def test_tensors_that_say_they_hold_more_than_the_file_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth declares more values than its \d+ bytes can hold"):
        read_tensors([tmp_path / "x.pth"])


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="the tensor a is not a plain dense one"):
        read_tensors([tmp_path / "x.pth"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no weights file .0 bytes."),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not the file itself: run git lfs pull",
        ),
        (b"<!DOCTYPE html>", "is a web page, not weights"),
        (b"\x80\x02nonsense", "is damaged, or not written by torch.save"),
        (b"PK\x03\x04nonsense", "is damaged or cut off"),
    ],
    ids=["empty", "pointer", "page", "pickle", "zip"],
)
def test_what_is_no_weights_file_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_tensors([tmp_path / "x.bin"])
    with pytest.raises(WeightsError, match="is no file"):
        read_tensors([tmp_path / "nothing.bin"])


def test_shards_are_put_together(tmp_path: Path) -> None:
    save_file({"a.weight": STATE["a.weight"]}, tmp_path / "1.safetensors")
    torch.save({"a.bias": STATE["a.bias"]}, tmp_path / "2.bin")
    paths = [tmp_path / "1.safetensors", tmp_path / "2.bin"]
    assert same(read_tensors(paths, where={"a.weight": "1.safetensors", "a.bias": "2.bin"}).tensors, STATE)
    with pytest.raises(WeightsError, match=r"the index says that a\.bias is in 1\.safetensors, which lacks it"):
        read_tensors(paths, where={"a.weight": "1.safetensors", "a.bias": "1.safetensors"})
    torch.save(STATE, tmp_path / "2.bin")
    with pytest.raises(WeightsError, match=r"the tensor a\.weight is in two shards, one of them 2\.bin"):
        read_tensors(paths)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "C:x", "a\0", "a\n", "x" * 300, 3, None]
)
def test_an_index_leads_nowhere_else(tmp_path: Path, name: object) -> None:
    (tmp_path / "i.json").write_text(
        json.dumps({"weight_map": {"a": "fine.safetensors", "b": name}}), encoding="utf-8"
    )
    with pytest.raises(WeightsError, match="a shard must be next to its index"):
        read_index(tmp_path / "i.json")
    assert not is_plain_name(name)


def test_an_index_of_ordinary_names_is_read(tmp_path: Path) -> None:
    where = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "i.json").write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    assert read_index(tmp_path / "i.json") == where


def test_json_that_is_too_deep_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" * 10**6, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"x\.json is no JSON: "):
        read_json(path)
    with path.open("wb") as stream:
        stream.truncate(17 * 2**20)
    with pytest.raises(WeightsError, match="has 17825792 bytes, more than the 16777216 that such a file may have"):
        read_json(path)


def test_a_name_from_a_file_cannot_break_a_message() -> None:
    assert printable_name("a.b") == "a.b"
    assert "\n" not in printable_name("a\nb")
    assert printable_name("") == "''"
    assert len(printable_name("x" * 10**6)) == 200
