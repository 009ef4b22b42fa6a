import json
import subprocess
import sys
from pathlib import Path

import pytest
from experiments.monitor.planted import FAILURES

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_planted_failure_is_flagged_as_the_documented_command_runs_it(tmp_path: Path) -> None:
    number = [one.name for one in FAILURES].index("final norm of the encoder zero")
    words = ("--work", str(tmp_path / "work"), "--seed", "300", "--out", str(tmp_path / "planted.json"))
    command = [sys.executable, "-m", "experiments.monitor.run", "planted", *words, "--only", str(number)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = json.loads((tmp_path / "planted.json").read_text()).values()
    assert found["flagged"]
    assert found["alarms"]["dead normalization"] == 0
    assert found["done"] <= 0.1 * found["steps"]
