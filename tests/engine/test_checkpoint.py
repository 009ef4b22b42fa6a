import math
import subprocess
import sys
import zipfile
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.engine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from videomae.errors import CheckpointError, ConfigError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save_steps(folder, *steps, keep=2):
    return [save_checkpoint(folder, step=s, state={"x": torch.full((100,), s)}, keep=keep) for s in steps]


def flip_a_bit(path):
    """Change one bit of tensor content, as a failing disk does."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        start = content.index(archive.read(entry), entry.header_offset)
    content[start] ^= 1
    path.write_bytes(content)


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_state_comes_back_as_it_was(tmp_path):
    state = {
        "tensor": torch.arange(6, dtype=torch.float64).view(2, 3),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "generator": torch.Generator().manual_seed(5).get_state(),
        "model": torch.nn.Linear(2, 2).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "nested": {"list": [1, (2.5, None, "text")], 7: True, "ordered": OrderedDict(a=1)},
        "best": math.inf,
        "name": "caf\u00e9",
    }
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a" / "b", step=12, state=state))
    assert loaded.pop("step") == 12
    assert loaded.keys() == state.keys()
    for key in ("tensor", "half", "scalar", "generator", "parameter"):
        assert torch.equal(loaded[key], state[key])
        assert loaded[key].dtype == state[key].dtype
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])
    assert {key: loaded[key] for key in ("nested", "best", "name")} == {
        key: state[key] for key in ("nested", "best", "name")
    }
    assert type(loaded["nested"]["list"][1]) is tuple
    assert loaded["nested"][7] is True


def test_file_is_named_by_its_step(tmp_path):
    assert save_checkpoint(tmp_path, step=42, state={}) == tmp_path / "checkpoint-00000042.pt"
    assert names(tmp_path) == ["checkpoint-00000042.pt"]


def test_newest_are_kept_and_the_newest_is_the_latest(tmp_path):
    save_steps(tmp_path, 0, 5, 10, 15)
    assert names(tmp_path) == ["checkpoint-00000010.pt", "checkpoint-00000015.pt"]
    save_steps(tmp_path, 20, keep=1)
    assert names(tmp_path) == ["checkpoint-00000020.pt"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-00000020.pt"


def test_order_is_of_numbers_and_not_of_names(tmp_path):
    paths = save_steps(tmp_path, 99_999_999, 100_000_000, keep=2)
    assert latest_checkpoint(tmp_path) == paths[1]


def test_same_step_is_replaced(tmp_path):
    save_checkpoint(tmp_path, step=1, state={"x": 1})
    assert load_checkpoint(save_checkpoint(tmp_path, step=1, state={"x": 2}))["x"] == 2


def test_no_folder_and_no_checkpoint_mean_none(tmp_path):
    assert latest_checkpoint(tmp_path / "missing") is None
    (tmp_path / "checkpoint-7.pt").write_bytes(b"not ours")
    (tmp_path / "checkpoint-00000007.pt.tmp").write_bytes(b"killed")
    (tmp_path / "checkpoint-00000009.pt").mkdir()
    assert latest_checkpoint(tmp_path) is None


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    for name in ("notes.txt", "checkpoint-7.pt", "model.tmp", "my-checkpoint-00000001.pt"):
        (tmp_path / name).write_text("mine")
    save_steps(tmp_path, 1, 2, 3, keep=1)
    assert names(tmp_path) == [
        "checkpoint-00000003.pt",
        "checkpoint-7.pt",
        "model.tmp",
        "my-checkpoint-00000001.pt",
        "notes.txt",
    ]


def test_partial_files_of_killed_runs_are_removed_by_the_next_save(tmp_path):
    (tmp_path / "checkpoint-00000003.pt.tmp").write_bytes(b"half")
    save_steps(tmp_path, 9)
    assert names(tmp_path) == ["checkpoint-00000009.pt"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_damaged_newest_falls_back_to_the_one_before_with_a_warning(tmp_path, damage):
    first, second = save_steps(tmp_path, 10, 20)
    damage(second)
    message = "checkpoint .*checkpoint-00000020.pt is damaged .* skipped for the one before it"
    with pytest.warns(UserWarning, match=message) as seen:
        assert latest_checkpoint(tmp_path) == first
    assert len(seen) == 1
    assert load_checkpoint(first)["x"][0] == 10
    with pytest.raises(CheckpointError, match=r"checkpoint-00000020.pt is damaged .*: resume from an earlier one"):
        load_checkpoint(second)


def test_torch_alone_would_have_read_the_changed_bit(tmp_path):
    # Why checksums are compared here: if torch learns to do it, _damage can go.
    (path,) = save_steps(tmp_path, 3)
    flip_a_bit(path)
    assert not torch.equal(torch.load(path, weights_only=True)["state"]["x"], torch.full((100,), 3))


def test_after_a_fall_back_the_next_save_is_the_latest_even_when_one_is_kept(tmp_path):
    _, second = save_steps(tmp_path, 10, 20)
    flip_a_bit(second)
    save_steps(tmp_path, 15, keep=1)
    assert names(tmp_path) == ["checkpoint-00000015.pt"]


def test_when_all_are_damaged_nothing_starts_afresh_in_silence(tmp_path):
    for path in save_steps(tmp_path, 10, 20):
        truncate(path)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(
            CheckpointError, match=r"damaged are checkpoint-00000020.pt, checkpoint-00000010.pt: restore one"
        ),
    ):
        latest_checkpoint(tmp_path)


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, np.float64(2.0)]}}, r"state\['a'\]\['b'\]\[1\] is a numpy.float64; .* convert it before"),
        ({"a": np.zeros(3)}, r"state\['a'\] is a numpy.ndarray"),
        ({"a": Path("x")}, r"state\['a'\] is a pathlib"),
        ({"a": Pair(1, 2)}, r"state\['a'\] is a test_checkpoint.Pair"),
        ({"a": {(1, 2): 3}}, r"state\['a'\] has the key \(1, 2\) of type tuple; keys are str or int"),
        ({"a": {1}}, r"state\['a'\] is a builtins.set"),
        ({"a": torch.float32}, r"state\['a'\] is a torch.dtype"),
    ],
)
def test_what_could_not_be_read_back_is_refused_at_saving(tmp_path, state, message):
    save_steps(tmp_path, 1)
    with pytest.raises(CheckpointError, match=message) as caught:
        save_checkpoint(tmp_path, step=2, state=state)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["checkpoint-00000001.pt"]


@pytest.mark.parametrize(
    ("step", "keep", "message"), [(1, 0, "to keep are 0; .* keep 1 or more"), (-1, 2, "step is -1")]
)
def test_settings_out_of_range_are_refused(tmp_path, step, keep, message):
    with pytest.raises(ConfigError, match=message):
        save_checkpoint(tmp_path, step=step, state={}, keep=keep)


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(CheckpointError, match=r"cannot be written \(.*\); .* another output folder"):
        save_checkpoint(tmp_path / "a", step=1, state={})


def test_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint-00000001.pt does not exist: check the path"):
        load_checkpoint(tmp_path / "checkpoint-00000001.pt")


@pytest.mark.parametrize("content", [{"model": {}}, [1, 2], {"videomae_checkpoint": 99, "step": 1, "state": {}}])
def test_strangers_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match=r"other.pt is not a training checkpoint of this version: use a checkpoint-"
    ):
        load_checkpoint(tmp_path / "other.pt")


def test_zip_that_is_not_torchs_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(CheckpointError, match=r"other.pt is not a training checkpoint"):
        load_checkpoint(tmp_path / "other.pt")


class Malicious:
    """Runs code when it is unpickled without care."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_checkpoint_cannot_run_code(tmp_path):
    witness = tmp_path / "witness"
    path = tmp_path / "checkpoint-00000001.pt"
    torch.save({"videomae_checkpoint": 1, "step": 1, "state": {"x": Malicious(witness)}}, path)
    with pytest.raises(CheckpointError, match="refused, because reading it could run code"):
        load_checkpoint(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists()  # the bait was real


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from videomae.engine.checkpoint import save_checkpoint
from videomae.errors import CheckpointError

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
save_checkpoint(folder, step=1, state={"x": torch.ones(100)}, keep=1)
try:
    try:
        raise KeyError if sys.argv[2] == "stopping" else CheckpointError
    except KeyError:
        save_checkpoint(folder, step=2, state={"x": torch.ones(1_000_000)}, keep=1)
    except CheckpointError:
        pass
    save_checkpoint(folder, step=2, state={"x": torch.ones(1_000_000)}, keep=1)
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["running", "stopping"])  # stopping: another error is being handled
def test_full_disk_leaves_the_previous_checkpoint_and_no_partial_file(tmp_path, moment):
    if not sys.platform.startswith("linux"):
        pytest.skip("limits the file size the Linux way")
    done = run_python(FULL_DISK, tmp_path, moment)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"checkpoint {tmp_path / 'checkpoint-00000002.pt'} cannot be written (File too large);")
    assert line.endswith("free space or give another output folder, then resume")
    assert names(tmp_path) == ["checkpoint-00000001.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 1


@pytest.mark.parametrize("while_handling", [False, True])
def test_a_data_worker_that_dies_during_a_save_is_not_taken_for_a_full_disk(tmp_path, monkeypatch, while_handling):
    # torch raises this from its SIGCHLD handler, wherever the program is; closing the file then fails as well.
    def dies(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    def save():
        if not while_handling:
            return save_steps(tmp_path, 1)
        try:
            raise OSError(28, "an earlier error that is being handled")
        except OSError:
            return save_steps(tmp_path, 1)

    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "_save", dies)
        with pytest.raises(RuntimeError, match="DataLoader worker"):
            save()
    assert names(tmp_path) == []
    save_steps(tmp_path, 1)


# The driver forks children that save without end, and kills each in the middle of a save: it waits until the
# partial file has grown to a given fraction of a whole one.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from videomae.engine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
SIZE = 1 << 21  # floats: 8 MiB a file

def state(step):
    return {"x": torch.full((SIZE,), float(step)), "step_twice": step}

def child(step):
    while True:
        step += 1
        save_checkpoint(folder, step=step, state=state(step))

save_checkpoint(folder, step=0, state=state(0))
mid_save = 0
for number in range(rounds):
    before = load_checkpoint(latest_checkpoint(folder))["step"]
    pid = os.fork()
    if pid == 0:
        child(before)
    share = (number + 0.5) / rounds
    saves = 1 + number % 3
    while True:  # the child's save number `saves` has grown to `share`
        target = folder / f"checkpoint-{before + saves:08d}.pt"
        try:
            if (folder / (target.name + ".tmp")).stat().st_size >= share * SIZE * 4:
                break
        except FileNotFoundError:
            pass
        if target.exists() or (folder / f"checkpoint-{before + saves + 1:08d}.pt").exists():
            break
    os.kill(pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    mid_save += any(path.suffix == ".tmp" for path in folder.iterdir())
    loaded = load_checkpoint(latest_checkpoint(folder))
    assert loaded["step"] >= before + saves - 1, (loaded["step"], before, saves)
    assert loaded["step"] == loaded["step_twice"]
    assert torch.equal(loaded["x"], torch.full((SIZE,), float(loaded["step"])))
print(mid_save)
save_checkpoint(folder, step=10_000, state=state(10_000), keep=1)
"""


@pytest.mark.slow
def test_run_killed_in_the_middle_of_a_save_always_has_a_loadable_latest(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("forks and kills the Linux way")
    rounds = 12
    done = run_python("import warnings; warnings.simplefilter('error')\n" + KILLED, tmp_path, rounds)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= rounds // 2  # so many left half a file: the kills came while saving
    assert names(tmp_path) == ["checkpoint-00010000.pt"]
