"""Runs of several processes that are killed, and machines that are lost: started again they end as if nothing was."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from processes import free_port, in_processes, start_processes
from videomae.cli import main
from videomae.engine.runlog import MetricsLog
from videomae.errors import RunError
from videomae.recipes.schema import PretrainRecipe
from videomae.train.pretrain import pretrain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, kills and namespaces the Linux way"),
]
SEED = int(os.environ.get("VIDEOMAE_TEST_SEED", random.randrange(10**6)))
STEPS = 30
COMPARED = ("metrics.jsonl", "model/model.safetensors")
WAIT_SECONDS = 200.0
CLONE_NEWNET = 0x40000000
# Names of this process alone: tests of another checkout may run beside these.
MACHINES = {f"videomae-{os.getpid()}-a": "10.199.77.1", f"videomae-{os.getpid()}-b": "10.199.77.2"}
Pretrain = Callable[..., PretrainRecipe]


def start_or_go_on(recipe: PretrainRecipe, out: Path) -> None:
    pretrain(recipe, out=out, resume=(out / "recipe.yaml").exists())


def num_steps(run: Path) -> int:
    return len(MetricsLog.read(run / "metrics.jsonl")) if (run / "metrics.jsonl").exists() else 0


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def recipe(pretrain_recipe: Pretrain, request: pytest.FixtureRequest) -> PretrainRecipe:
    kind = getattr(request, "param", "ddp")
    words = ["--schedule.steps", str(STEPS), "--loop.checkpoint_steps", "7", "--loop.log_steps", "1"]
    return pretrain_recipe(*words, "--parallel.kind", kind, "--model.overrides.drop_path_rate", "0.1")


@pytest.mark.parametrize("recipe", ["ddp", "fsdp"], indirect=True)
def test_two_processes_that_are_killed_again_and_again_end_like_those_that_nobody_killed(
    recipe: PretrainRecipe, tmp_path: Path
) -> None:
    run, draw = tmp_path / "run", random.Random(SEED)
    in_processes(2, start_or_go_on, recipe, tmp_path / "whole")
    for until in sorted(draw.sample(range(2, STEPS - 2), 2)):
        processes = start_processes(2, start_or_go_on, recipe, run)
        wait_for(lambda until=until: num_steps(run) >= until)  # type: ignore[misc]
        time.sleep(draw.random() * 0.05)
        for process in processes:
            process.kill()
            process.join()
        print(f"seed {SEED}: killed after {num_steps(run)} steps")  # pytest shows it where the test fails
    in_processes(2, start_or_go_on, recipe, run)
    for name in COMPARED:
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((run / "checkpoints").glob("*.tmp"))


def test_a_second_live_run_in_one_folder_is_refused_in_all_of_its_processes_and_changes_nothing(
    recipe: PretrainRecipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = replace(recipe, schedule=replace(recipe.schedule, steps=60))  # so that it lives on beside the others
    processes = start_processes(2, start_or_go_on, recipe, run)
    wait_for(lambda: num_steps(run) >= 2)
    for overwrite in (False, True):
        in_processes(2, second_run, recipe, run, overwrite)
    for process in processes:
        process.join(WAIT_SECONDS)
        assert process.exitcode == 0
    in_processes(2, start_or_go_on, recipe, tmp_path / "whole")
    for name in COMPARED:
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def second_run(recipe: PretrainRecipe, out: Path, overwrite: bool) -> None:
    with pytest.raises(RunError, match=r"is in use by another run .*: wait until it has ended, end it, or choose"):
        pretrain(recipe, out=out, resume=not overwrite, overwrite=overwrite)


def test_resume_or_start_starts_where_there_is_no_run_and_resumes_where_there_is_one(
    pretrain_recipe: Pretrain, labelled_folder: Path, tmp_path: Path
) -> None:
    from videomae.recipes.schema import recipe_to_yaml

    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_to_yaml(pretrain_recipe()))
    for _ in range(2):
        assert main(["pretrain", "--config", str(file), "--out", str(tmp_path / "run"), "--resume-or-start"]) == 0
    assert num_steps(tmp_path / "run") == 8
    (tmp_path / "run" / "model" / "videomae.json").unlink()
    assert main(["pretrain", "--config", str(file), "--out", str(tmp_path / "run"), "--resume-or-start"]) == 0
    events = [one["event"] for one in MetricsLog.read(tmp_path / "run" / "history.jsonl")]
    assert events == ["started", "finished", "resumed", "finished"]


# ---- two machines ------------------------------------------------------------------------------------------------


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Two network namespaces with an address each, joined by a cable."""
    names = list(MACHINES)
    commands = [f"netns add {name}" for name in names]
    commands.append(f"link add veth netns {names[0]} type veth peer name veth netns {names[1]}")
    for name, address in MACHINES.items():
        commands += [f"-n {name} address add {address}/24 dev veth", f"-n {name} link set veth up"]
        commands.append(f"-n {name} link set lo up")
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"network namespaces cannot be made here (ip {command}): {done.stderr.strip()}")
        yield MACHINES
    except FileNotFoundError:
        pytest.skip("network namespaces cannot be made here: there is no ip command")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def machine(name: str, port: int, recipe: PretrainRecipe, out: Path) -> None:
    """Be one machine: torchrun's agent with one process, in a network namespace."""
    os.setpgid(0, 0)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    assert ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    os.environ["GLOO_SOCKET_IFNAME"] = "veth"
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else a new machine waits for an address never told
    config = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        nproc_per_node=1,
        run_id="two machines",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{next(iter(MACHINES.values()))}:{port}",
        local_addr=MACHINES[name],
        rdzv_configs={"is_host": name == next(iter(MACHINES))},
        max_restarts=3,
        start_method="fork",
        monitor_interval=0.1,
    )
    elastic_launch(config, start_or_go_on)(recipe, out)
    os._exit(0)


def start_machine(name: str, port: int, recipe: PretrainRecipe, out: Path) -> ForkProcess:
    process = get_context("fork").Process(target=machine, args=(name, port, recipe, out))
    process.start()
    return process


def test_a_machine_that_is_lost_comes_back_and_the_run_goes_on_to_the_same_bytes(
    machines: dict[str, str], recipe: PretrainRecipe, tmp_path: Path
) -> None:
    run, port = tmp_path / "run", free_port()
    in_processes(2, start_or_go_on, recipe, tmp_path / "whole")
    first, second = machines
    one = start_machine(first, port, recipe, run)
    two = start_machine(second, port, recipe, run)
    wait_for(lambda: num_steps(run) >= 10)
    os.killpg(two.pid or 0, 9)  # the agent and the process that trains
    two.join()
    assert num_steps(run) < STEPS
    two = start_machine(second, port, recipe, run)
    try:
        for process in (one, two):
            process.join(WAIT_SECONDS)
            assert process.exitcode == 0
    finally:
        for process in (one, two):
            if process.is_alive():
                os.killpg(process.pid or 0, 9)
    for name in COMPARED:
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    history = [event for event in MetricsLog.read(run / "history.jsonl") if event["event"] in ("started", "resumed")]
    assert [(event["event"], event["processes"]) for event in history] == [("started", 2), ("resumed", 2)]
