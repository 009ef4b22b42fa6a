"""Run the numeric tests once under each instruction set of this processor: `make test-isa`.

    python .ci/instruction_sets.py                         all sets, all tests marked numeric
    python .ci/instruction_sets.py default avx2 --quick    two sets, without the slow tests

Each set is a run of its own, since torch, oneDNN and MKL choose their kernels when they are loaded. A set is limited
with their own variables, and what torch and oneDNN then say they use stands in the table. `native` has no limit: on
processors with bfloat16 instructions or AMX it is more than `avx512`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
# torch's kernels, oneDNN's and MKL's; MKL obeys on Intel's processors and chooses for itself on others.
SETS: dict[str, dict[str, str]] = {
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "native": {},
}
# oneDNN names its instruction set when it is first used and told to be verbose.
PROBE = "import torch; torch.ones(8, 8).to_mkldnn(); print('torch:', torch.backends.cpu.get_cpu_capability())"


class InUse(NamedTuple):
    """What the libraries say they use."""

    torch: str
    onednn: str


class Outcome(NamedTuple):
    """What a run of the tests gave."""

    passed: int
    failed: tuple[str, ...]
    skipped: int
    seconds: float
    output: str


def environment(name: str) -> dict[str, str]:
    """Return the variables of a process that is limited to a set."""
    limits = {variable for limit in SETS.values() for variable in limit}
    return {key: value for key, value in os.environ.items() if key not in limits} | SETS[name]


def in_use(name: str) -> InUse:
    """Ask torch and oneDNN what they use under the limits of a set."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environment(name) | {"ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    capability = re.search(r"^torch: (.+)$", result.stdout, flags=re.MULTILINE)
    isa = re.search(r",cpu,isa:(.+)$", result.stdout, flags=re.MULTILINE)
    assert capability, result.stdout
    return InUse(capability[1], isa[1] if isa else "not used")


def available() -> list[str]:
    """Return the sets of this machine: those up to what torch uses without a limit, and no limit."""
    order = ["DEFAULT", "AVX2", "AVX512"]
    best = in_use("native").torch
    return [*list(SETS)[: order.index(best) + 1], "native"] if best in order else ["native"]


def run_tests(name: str, arguments: list[str]) -> Outcome:
    """Run pytest under a set."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments],
            cwd=ROOT,
            env=environment(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode not in (0, 1):  # 1: tests failed; others: there was nothing to run, or pytest failed
            sys.exit(f"{name}: pytest ended with status {result.returncode}\n{result.stdout}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = tuple(
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    )
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failed) - skipped
    return Outcome(passed, failed, skipped, time.monotonic() - start, result.stdout)


def main() -> None:
    """Run the sets that were asked for; exit with status 1 if a test failed under any."""
    parser = argparse.ArgumentParser(prog=".ci/instruction_sets.py", description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; default: all that there are")
    parser.add_argument("--quick", action="store_true", help="without the tests marked slow")
    parser.add_argument("--workers", default="2", help="test processes; default 2")
    parser.add_argument("--tests", type=Path, help="a file of tests to run instead of those marked numeric")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"unknown set {', '.join(sorted(unknown))}: choose of {', '.join(SETS)}")
    there = available()
    marked = "numeric and not slow" if options.quick else "numeric"
    chosen = ["-n", "0", str(options.tests)] if options.tests else ["-n", options.workers, "-m", marked]
    failed = False
    print("set      torch    passed failed skipped seconds  oneDNN")
    for name in options.sets or there:
        if name not in there:
            print(f"{name:<8} not on this processor")
            continue
        libraries = in_use(name)
        if name != "native" and libraries.torch.lower() != name:
            sys.exit(f"{name}: torch uses {libraries.torch} in spite of {SETS[name]}")
        found = run_tests(name, ["--dist", "worksteal", *chosen])
        print(
            f"{name:<8} {libraries.torch:<8} {found.passed:>6} {len(found.failed):>6} {found.skipped:>7} "
            f"{found.seconds:>7.0f}  {libraries.onednn}",
            flush=True,
        )
        if found.failed:
            failed = True
            print(found.output)
            print("\n".join(f"failed under {name}: {test}" for test in found.failed))
    sys.exit(failed)


if __name__ == "__main__":
    main()
