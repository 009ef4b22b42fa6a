"""Two hundred checkpoints, each damaged in one way, drawn from a seed; and the program that reads them all.

Run as a program with a folder, it tries to load every checkpoint in it under a limit on memory and prints, as JSON,
what each of them gave.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ALLOWANCE_BYTES = 500 * 10**6
NUM_FILES = 200
Damage = Callable[[Path, random.Random], None]


def make_damaged(sound: Path, folder: Path, *, seed: int = 0) -> list[str]:
    """Write `NUM_FILES` damaged copies of a saved model into a folder, and return what was done to each."""
    kinds = sorted(DAMAGES.items())
    done = []
    for number in range(NUM_FILES):
        name, damage = kinds[number % len(kinds)]
        copy = folder / f"{number:03d}"
        shutil.copytree(sound, copy)
        damage(copy, random.Random(seed * 10**6 + number))
        done.append(name)
    return done


def _rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def _configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**kept, **values}), encoding="utf-8")


def cut(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def flip_header_bit(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    # Behind the metadata, which says nothing about the tensors, and before the padding.
    start = content.index(b"}", 8) + 1
    content[rng.randrange(start, 8 + length - 16)] ^= 1 << rng.randrange(7)
    path.write_bytes(content)


def declare_another_header_length(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[:8] = rng.choice([0, 1, 2**31, 2**40, 2**63 - 1, len(content), 99 * 10**6]).to_bytes(8, "little")
    path.write_bytes(content)


def declare_huge_tensor(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    size = rng.choice([2**33, 2**62, 10**12])
    entry["shape"][0] = size
    if rng.random() < 0.5:
        entry["data_offsets"][1] = entry["data_offsets"][0] + 4 * size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def change_dtype(folder: Path, rng: random.Random) -> None:
    dtype = rng.choice([torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.complex64])

    def change(state: dict[str, Tensor]) -> None:
        key = rng.choice(sorted(state))
        state[key] = state[key].to(dtype)

    _rewrite(folder, change)


def lose_tensors(folder: Path, rng: random.Random) -> None:
    def change(state: dict[str, Tensor]) -> None:
        for key in rng.sample(sorted(state), rng.randint(1, 5)):
            del state[key]

    _rewrite(folder, change)


def add_tensors(folder: Path, rng: random.Random) -> None:
    def change(state: dict[str, Tensor]) -> None:
        names = [
            "ema.decay",
            "videomae.encoder.layer.7.output.dense.weight",
            "videomae.encoder.layer.0.attention.attention.key.bias",
            "student.patch_embed.proj.weight",
            "",
            "\n",
            "a" * 500,
        ]
        state[rng.choice(names)] = torch.zeros(rng.randint(1, 9))

    _rewrite(folder, change)


def change_shapes(folder: Path, rng: random.Random) -> None:
    def change(state: dict[str, Tensor]) -> None:
        key = rng.choice(sorted(state))
        tensor = state[key]
        wrong = [tensor.unsqueeze(0), torch.cat([tensor, tensor]), tensor[:-1], tensor.flatten()[:0]]
        if tensor.dim() > 1:
            wrong.append(tensor.flatten())
        state[key] = rng.choice(wrong).contiguous()

    _rewrite(folder, change)


def declare_huge_network(folder: Path, rng: random.Random) -> None:
    name = rng.choice(
        "hidden_size num_hidden_layers intermediate_size num_frames image_size num_labels patch_size num_channels "
        "tubelet_size".split()
    )
    if name == "num_labels":
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        del values["id2label"], values["label2id"]
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    _configure(folder, **{name: rng.choice([2**24, 10**9, 10**15, 10**400])})


def spoil_configuration(folder: Path, rng: random.Random) -> None:
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    choice = rng.randrange(8)
    if choice == 0:
        path.write_text(text[: rng.randrange(len(text) - 2)], encoding="utf-8")
    elif choice == 1:
        path.write_text("[" * 200_000, encoding="utf-8")
    elif choice == 2:
        path.write_bytes(rng.randbytes(300))
    elif choice == 3:
        name = rng.choice(["hidden_size", "num_frames", "qkv_bias", "qv_bias"])
        _configure(folder, **{name: rng.choice(["x", [], {}])})
    elif choice == 4:
        _configure(folder, id2label=rng.choice([["a"], {"x": "y"}, {"0": "a", "7": "b"}, "abc"]), num_labels=None)
    elif choice == 5:
        _configure(folder, model_type=rng.choice(["timesformer", 3, None, ["videomae"]]))
    elif choice == 6:
        _configure(folder, num_attention_heads=rng.choice([0, -1, 5, 1.5, "2", None]))
    else:
        _configure(folder, hiden_size=24)


def trick_the_index(folder: Path, rng: random.Random) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "",
        "sub/../../model.safetensors",
        "..\\model.safetensors",
        "C:\\model.safetensors",
        "model-00002-of-00002.safetensors",
        "\0",
        "x" * 5000,
        7,
        None,
    ]
    sound: dict[str, Any] = dict.fromkeys(state, "model-00001-of-00001.safetensors")
    where = dict(sound)
    where[rng.choice(sorted(where))] = rng.choice(names)
    content: Any = {"weight_map": where}
    if rng.random() < 0.3:
        more = {**sound, "more": "model-00001-of-00001.safetensors"}
        content = rng.choice([{"weight_map": list(where)}, {"weight_map": {}}, {}, [1], {"weight_map": more}])
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def _pickled(folder: Path, content: object, **options: Any) -> Path:
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(content, path, **options)
    return path


def cut_pickle(folder: Path, rng: random.Random) -> None:
    old = rng.random() < 0.5
    path = _pickled(folder, load_file(folder / "model.safetensors"), _use_new_zipfile_serialization=not old)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content) - 60)])


def overwrite_pickle(folder: Path, rng: random.Random) -> None:
    path = _pickled(folder, load_file(folder / "model.safetensors"))
    content = bytearray(path.read_bytes())
    start = content.index(b"data.pkl") + 100
    position = rng.randrange(start, start + 2000)
    content[position : position + 16] = rng.randbytes(16)
    path.write_bytes(content)


class Runner:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def run_code(folder: Path, rng: random.Random) -> None:
    state: dict[str, Any] = dict(load_file(folder / "model.safetensors"))
    runner = Runner(folder / "ran")
    content = rng.choice([{**state, "x": runner}, {"model": state, "args": runner}, runner, {"model": [runner]}])
    if rng.random() < 0.5:
        _pickled(folder, content, _use_new_zipfile_serialization=rng.random() < 0.5)
    else:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=rng.choice([2, 4])))


def inflate_pickle(folder: Path, rng: random.Random) -> None:
    state = load_file(folder / "model.safetensors")
    choice = rng.randrange(4)
    if choice == 0:  # a number of values that no storage holds
        state["classifier.weight"] = torch.zeros(1).expand(rng.choice([10**6, 10**9]), 1000)
        _pickled(folder, state)
    elif choice == 1:  # an archive that unpacks to much more than it is
        path = _pickled(folder, state)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"]" * 10**7)
            archive.writestr("archive/version", b"3\n")
    elif choice == 2:  # a storage that says it is larger
        path = _pickled(folder, state, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        size = pickle.dumps(24 * 24, protocol=2)[2:-1]  # of the storage of a square matrix
        assert content.count(size) > 3
        path.write_bytes(content.replace(size, pickle.dumps(10**9 + 7, protocol=2)[2:-1], 3))
    else:  # every tensor a view of everything
        flat = torch.zeros(10**6)
        _pickled(folder, {f"a{number}": flat[:] for number in range(500)})


def replace_file(folder: Path, rng: random.Random) -> None:
    contents = [
        b"",
        b"<!DOCTYPE html><html></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        rng.randbytes(1000),
        b"\x80\x02" + rng.randbytes(100),
        b"PK\x03\x04" + rng.randbytes(100),
        (10**6).to_bytes(8, "little") + b"{",
        (2).to_bytes(8, "little") + b"{}",
    ]
    (folder / "model.safetensors").unlink()
    name = rng.choice(["model.safetensors", "pytorch_model.bin"])
    (folder / name).write_bytes(rng.choice(contents))


def foreign_content(folder: Path, rng: random.Random) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "not weights")
    content = rng.choice([[1, 2], {"model": 3}, {}, {"epoch": 1}, torch.zeros(3), {"a": torch.zeros(2)}, buffer])
    if content is buffer:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(buffer.getvalue())
    else:
        _pickled(folder, content)


DAMAGES: dict[str, Damage] = {
    function.__name__: function
    for function in (
        cut,
        flip_header_bit,
        declare_another_header_length,
        declare_huge_tensor,
        change_dtype,
        lose_tensors,
        add_tensors,
        change_shapes,
        declare_huge_network,
        spoil_configuration,
        trick_the_index,
        cut_pickle,
        overwrite_pickle,
        run_code,
        inflate_pickle,
        replace_file,
        foreign_content,
    )
}


def _memory(kind: str) -> int:
    """Return a figure of this process's memory in bytes: VmSize now, VmHWM at the highest."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1]) * 1024


def measure(call: Callable[[], object]) -> tuple[object, int, float]:
    """Run a call and return its result, by how many bytes memory grew at its highest, and its seconds."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts anew
    before, start = _memory("VmRSS"), time.perf_counter()
    result = call()
    return result, _memory("VmHWM") - before, time.perf_counter() - start


def read_all(root: Path) -> dict[str, Any]:
    """Try to load every checkpoint of a folder, each with memory for its size and the allowance, and tell."""
    import resource

    from videomae.model.classification import VideoMAEForVideoClassification

    def attempt() -> tuple[str, str]:
        try:
            VideoMAEForVideoClassification.from_pretrained(folder)
        except BaseException as error:
            return type(error).__name__, str(error)
        return "loaded", ""

    torch.set_num_threads(1)
    VideoMAEForVideoClassification.from_pretrained(root.parent / "sound")  # what is imported late is imported now
    _, known, _ = measure(lambda: b"x" * 10**8)
    results = []
    for folder in sorted(root.iterdir()):
        size = sum(path.stat().st_size for path in folder.iterdir())
        limit = _memory("VmSize") + size + ALLOWANCE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        (kind, text), peak, seconds = measure(attempt)  # type: ignore[misc]
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        results.append({"kind": kind, "text": text, "seconds": seconds, "peak": peak, "size": size})
    return {"results": results, "peak_of_100_megabytes": known}


if __name__ == "__main__":
    print(json.dumps(read_all(Path(sys.argv[1]))))
