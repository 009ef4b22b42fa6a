"""Kill training runs at random moments, resume them, and compare them with the run that nobody killed.

Every run is a process group of the real command with data workers. SIGTERM goes to the whole group, SIGKILL in turn
to the group and to the main process alone. What is resumed must end with the same `metrics.jsonl`, `evaluation.json`
and weights, byte for byte, and the same record of the training, and no process may be left.

    python -m benchmarks.kills --moments 20
    python -m benchmarks.kills --moments 5 --loops finetune --signals SIGKILL --seed 7
    python -m benchmarks.kills --moments 10 --processes 2 --kind fsdp --signals SIGKILL

With several processes torchrun starts the run. SIGTERM goes to torchrun, which passes it on, as a scheduler's would;
SIGKILL in turn to torchrun and all of its processes at once, and to one of those that train.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videomae.data.synthetic import write_motion_videos

STEPS = 150
STARTUP_FRACTION = 0.1  # of the random moments fall before the run has a folder
WAIT_SECONDS = 600.0
POLL_SECONDS = 0.002
MODEL = {
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
DECODER = {
    f"decoder_{name}": value for name, value in MODEL.items() if name.startswith(("hidden_size", "num", "inter"))
}
COMPARED = ("metrics.jsonl", "evaluation.json", "model/model.safetensors")
RECORD = "model/videomae.json"  # compared by value: a recipe that was read back has 30.0 epochs where it had 30


@dataclass(frozen=True)
class Outcome:
    """What became of a run that was killed and resumed."""

    moment: str
    """When the signal came."""
    phase: str
    """How far the run had come."""
    status: int
    """Exit status of the killed process, negative for a signal."""
    seconds: float
    """From the signal to the end of the process."""
    restarted: bool
    """Whether there was nothing to resume yet, so that the command was given again as it was."""
    differing: tuple[str, ...]
    """Files that differ from those of the run that nobody killed."""
    left_over: int
    """Processes of the run's group that were still there 30 seconds later."""


@dataclass(frozen=True)
class Subject:
    """A training command and the run that nobody killed."""

    subcommand: str
    """`pretrain` or `finetune`."""
    words: tuple[str, ...]
    """All arguments but those of the run folder."""
    whole: Path
    """Folder of the uninterrupted run."""
    steps: int
    """Optimizer steps of a run."""
    startup_seconds: float
    """Until its folder was there."""
    run_seconds: float
    """From then to its end."""
    processes: int = 1
    """Of a run; more than one are torchrun's."""

    def command(self, run: Path) -> list[str]:
        """Return the command that starts a run."""
        return [*self.launcher(), "-m", "videomae", self.subcommand, *self.words, "--out", str(run)]

    def resume(self, run: Path) -> list[str]:
        """Return the command that resumes a run."""
        return [*self.launcher(), "-m", "videomae", self.subcommand, "--resume", "--out", str(run)]

    def launcher(self) -> list[str]:
        """Return how Python is started."""
        if self.processes == 1:
            return [sys.executable]
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]


Moment = Callable[[Subject, Path], bool]
MOMENTS: dict[str, Moment] = {
    "before the first step": lambda subject, run: (run / "recipe.yaml").exists(),
    "while a checkpoint is written": lambda subject, run: any((run / "checkpoints").glob("*.tmp")),
    "after the last step": lambda subject, run: any(
        (run / "checkpoints").glob(f"checkpoint-{subject.steps:08d}*[!p]")
    ),
    "while the model is written": lambda subject, run: (run / "model").exists(),
}
"""Moments that are known by what is in the run folder."""


def make_subject(
    subcommand: str, folder: Path, *, steps: int = STEPS, processes: int = 1, kind: str = "ddp"
) -> Subject:
    """Write videos, and run a training command on them to its end."""
    if not (folder / "videos").exists():
        write_motion_videos(folder / "videos", videos_per_class=2, size=32, num_frames=16)
    words = [f"--data.train={folder / 'videos'}", f"--schedule.steps={steps}", "--model.image_size=32"]
    words += ["--clip.num_frames=8", "--clip.stride=1", "--loop.batch_size=4", "--loop.device=cpu"]
    words += ["--loop.workers=1", "--loop.checkpoint_steps=7", "--loop.log_steps=5", f"--parallel.kind={kind}"]
    if subcommand == "pretrain":
        sizes: dict[str, object] = {**MODEL, **DECODER, "drop_path_rate": 0.1}
        words += ["--mask.ratio=0.75"]
    else:
        sizes = {**MODEL}
        words += ["--data.val_fraction=0.5", "--head.dropout=0.1"]
    words += [f"--model.overrides.{name}={value}" for name, value in sizes.items()]
    whole = folder / f"{subcommand}-whole"
    subject = Subject(subcommand, ("--config", "tiny", *words), whole, steps, 0.0, 0.0, processes)
    begun = time.monotonic()
    process = start(subject.command(subject.whole))
    wait_until(lambda: subject.whole.exists(), process)
    found = time.monotonic()
    if process.wait(timeout=WAIT_SECONDS) != 0:
        raise SystemExit(f"the uninterrupted {subcommand} run failed with status {process.returncode}")
    return replace(subject, startup_seconds=found - begun, run_seconds=time.monotonic() - found)


def kill_and_resume(
    subject: Subject, run: Path, number: signal.Signals, moment: Moment | float, *, name: str, group: bool = True
) -> Outcome:
    """Start a run, send it a signal, resume it, and compare it.

    Args:
        subject: What is run.
        run: Folder of the run, which does not exist.
        number: The signal.
        moment: When it is sent: a condition of the run folder, or a fraction of the uninterrupted run's time.
        name: What the moment is called in the outcome.
        group: Send it to the whole process group, not to the main process alone.
    """
    process = start(subject.command(run))
    if callable(moment):
        wait_until(lambda: moment(subject, run), process)
    else:
        wait_for_fraction(subject, run, moment, process)
    sent = time.monotonic()
    if subject.processes > 1:
        signal_torchrun(process.pid, number, all_of_them=group)
    else:
        (os.killpg if group else os.kill)(process.pid, number)  # until it is waited for, its number is nobody else's
    status = process.wait(timeout=WAIT_SECONDS)
    seconds = time.monotonic() - sent
    phase = how_far(run)
    left_over = remaining(process.pid, run, seconds=30.0)
    restarted = not (run / "recipe.yaml").exists()
    again = subprocess.run(
        subject.command(run) if restarted else subject.resume(run),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    differing = tuple(file for file in COMPARED if content(run / file) != content(subject.whole / file))
    if json.loads(content(run / RECORD) or b"{}") != json.loads(content(subject.whole / RECORD) or b"{}"):
        differing += (RECORD,)
    if again.returncode != 0:
        print(again.stderr, file=sys.stderr)
        differing = (f"resuming failed with status {again.returncode}",)
    return Outcome(name, phase, status, seconds, restarted, differing, left_over)


def random_moments(
    subject: Subject, folder: Path, number: signal.Signals, count: int, seed: int
) -> Iterator[Outcome]:
    """Kill runs at moments that are spread at random over the time of the uninterrupted run."""
    draw = random.Random(f"{seed} {subject.subcommand} {number.name}")
    for index in range(count):
        fraction = draw.random()
        group = number != signal.SIGKILL or index % 2 == 0
        run = folder / f"{subject.subcommand}-{number.name}-{index}"
        yield kill_and_resume(subject, run, number, fraction, name=f"{fraction:.3f}", group=group)


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for a condition, or for the end of the process without reaping it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds() and not has_ended(process.pid):
        if time.monotonic() > deadline:
            raise SystemExit(f"process {process.pid} did not come to the moment in {WAIT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def wait_for_fraction(subject: Subject, run: Path, fraction: float, process: subprocess.Popen[bytes]) -> None:
    """Wait for a fraction of the run's expected time; the start-up has a fixed part of it."""
    if fraction < STARTUP_FRACTION:
        deadline = time.monotonic() + subject.startup_seconds * fraction / STARTUP_FRACTION
    else:
        wait_until(run.exists, process)
        deadline = time.monotonic() + subject.run_seconds * (fraction - STARTUP_FRACTION) / (1 - STARTUP_FRACTION)
    wait_until(lambda: time.monotonic() >= deadline, process)


def has_ended(pid: int) -> bool:
    """Return whether a process, a child or not, has ended; a child that is not waited for yet counts as ended."""
    return status_of(pid)[0] in "ZX"


def signal_torchrun(pid: int, number: signal.Signals, *, all_of_them: bool) -> None:
    """Send a signal to torchrun, or SIGKILL to it and all processes below it, or to one of those that train."""
    below = children(pid)
    if number != signal.SIGKILL or not below:
        os.kill(pid, number)
        return
    found = [*below, *(one for child in below for one in children(child))]
    for one in (pid, *found) if all_of_them else (max(below),):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, as far as they are there."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def remaining(group: int, run: Path, *, seconds: float) -> int:
    """Return how many processes of a run are still there when so many seconds have passed; 0 as soon as none is.

    Args:
        group: The process group that the command was started in; torchrun's processes have groups of their own.
        run: Folder of the run, which the command lines of its processes name.
        seconds: How long to wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        processes = [(int(path.name), *status_of(int(path.name))) for path in Path("/proc").glob("[0-9]*")]
        alive = [(pid, number) for pid, state, number in processes if state not in "ZX"]
        count = sum(number == group or (pid != os.getpid() and names(pid, run)) for pid, number in alive)
        if count == 0 or time.monotonic() > deadline:
            return count
        time.sleep(0.1)


def names(pid: int, run: Path) -> bool:
    """Return whether a process's command line names the folder of a run."""
    try:
        return os.fsencode(run) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def status_of(pid: int) -> tuple[str, int]:
    """Return the state of a process, X where there is none, and its group."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[2])


def how_far(run: Path) -> str:
    """Tell from its folder how far a run has come."""
    checkpoints = sorted(one for one in (run / "checkpoints").glob("checkpoint-*") if one.suffix != ".tmp")
    if (run / "model" / "videomae.json").exists():
        return "finished"
    if (run / "model").exists():
        return "model"
    if checkpoints:
        return f"step {int(checkpoints[-1].stem.split('-')[1])}"
    return "no checkpoint" if (run / "recipe.yaml").exists() else "no recipe" if run.exists() else "no folder"


def content(path: Path) -> bytes | None:
    """Return the bytes of a file, None where there is none; of metrics without what is measured in seconds."""
    if not path.exists():
        return None
    found = path.read_bytes()
    measured = rb', "(data_wait|clips_per_second|flops_per_second|peak_fraction)": [0-9.e+-]+'
    return re.sub(measured, b"", found) if path.name == "metrics.jsonl" else found


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, resume, compare, and print a table; returns 1 where a run differs or leaves a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="for each loop and signal")
    parser.add_argument("--loops", default="pretrain,finetune")
    parser.add_argument("--signals", default="SIGTERM,SIGKILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="of a run")
    parser.add_argument("--kind", choices=("ddp", "fsdp"), default="ddp", help="how they share the work")
    options = parser.parse_args(arguments)
    outcomes: list[Outcome] = []
    print(
        f"seed {options.seed}\n\n| loop | signal | moment | phase | status | seconds | then | differing | left over |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for subcommand in options.loops.split(","):
            subject = make_subject(subcommand, folder, processes=options.processes, kind=options.kind)
            for signal_name in options.signals.split(","):
                number = signal.Signals[signal_name]
                for one in random_moments(subject, folder, number, options.moments, options.seed):
                    outcomes.append(one)
                    then = "started again" if one.restarted else "resumed"
                    row = (subcommand, signal_name, one.moment, one.phase, one.status, f"{one.seconds:.1f}", then)
                    cells = (*row, ", ".join(one.differing) or "-", one.left_over)
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    failed = sum(bool(one.differing or one.left_over) for one in outcomes)
    slowest = max(one.seconds for one in outcomes)
    print(f"\n{len(outcomes)} runs killed, {failed} of them differ or left a process; slowest end {slowest:.1f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
