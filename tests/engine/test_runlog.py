import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from videomae.engine.runlog import MetricsLog, RunFolder
from videomae.errors import ConfigError, RunError


def open_run(path, *, overwrite=False, resume=False):
    return RunFolder.open(path, overwrite=overwrite, resume=resume)


def tree(folder):
    """Return every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def run(tmp_path):
    """A run with a metrics file and a checkpoint."""
    folder = open_run(tmp_path / "run")
    MetricsLog(folder.metrics).append({"step": 1, "loss": 0.5})
    folder.checkpoints.mkdir()
    (folder.checkpoints / "checkpoint-00000001.pt").write_bytes(b"weights")
    return folder


def test_new_run_gets_its_folder_and_its_places_in_it(tmp_path):
    folder = open_run(tmp_path / "a" / "b" / "run")
    assert folder.path == tmp_path / "a" / "b" / "run"
    assert [p.name for p in folder.path.iterdir()] == ["run.json"]
    assert folder.checkpoints == folder.path / "checkpoints"
    assert folder.metrics == folder.path / "metrics.jsonl"


def test_empty_folder_and_one_left_by_a_killed_start_are_taken(tmp_path):
    (tmp_path / "a").mkdir()
    open_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json.tmp").write_bytes(b'{"ki')
    assert open_run(tmp_path / "b").path.exists()
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["run.json"]


def test_a_run_whose_start_was_killed_before_it_wrote_anything_is_taken(tmp_path):
    folder = open_run(tmp_path / "run")
    (folder.path / "recipe.yaml.tmp").write_bytes(b"hal")
    assert open_run(tmp_path / "run") == folder
    folder.write_text("recipe.yaml", "x: 1\n")
    with pytest.raises(RunError, match="holds a run already"):
        open_run(tmp_path / "run")


def test_an_overwrite_that_was_killed_can_be_asked_for_again(run, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(path):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("videomae.engine.runlog._make_run", killed)
        patch.setattr("shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(Killed))  # nor is anything put back
        with pytest.raises(Killed):
            open_run(run.path, overwrite=True)
    assert not run.path.exists()
    assert open_run(run.path, overwrite=True) == run
    assert [p.name for p in run.path.iterdir()] == ["run.json"]


def test_run_is_not_taken_over_unasked(run):
    before = tree(run.path)
    with pytest.raises(
        RunError, match="run holds a run already: resume it, overwrite it, or choose another"
    ) as caught:
        open_run(run.path)
    assert "\n" not in str(caught.value)
    assert tree(run.path) == before


def test_resume_keeps_everything(run):
    before = tree(run.path)
    assert open_run(run.path, resume=True) == run
    assert tree(run.path) == before


def test_overwrite_leaves_a_fresh_run_and_nothing_beside_it(run):
    open_run(run.path, overwrite=True)
    assert [p.name for p in run.path.iterdir()] == ["run.json"]
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


def test_overwrite_of_nothing_makes_a_run(tmp_path):
    assert open_run(tmp_path / "run", overwrite=True).path.is_dir()


def test_overwrite_through_a_link_replaces_the_run_and_keeps_the_link(run):
    link = run.path.parent / "link"
    try:
        link.symlink_to(run.path)
    except OSError:
        pytest.skip("this system does not let the test make symbolic links")
    open_run(link, overwrite=True)
    assert link.is_symlink()
    assert [p.name for p in run.path.iterdir()] == ["run.json"]


def test_overwrite_whose_new_folder_fails_puts_the_old_run_back(run, monkeypatch):
    before = tree(run.path)
    real_replace = os.replace

    def full_disk(source, target):
        if Path(target).name == "run.json":
            raise OSError(28, "No space left on device")
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(RunError, match="No space left on device"):
        open_run(run.path, overwrite=True)
    assert tree(run.path) == before
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


def test_earlier_leftover_beside_the_run_is_not_touched(run):
    leftover = run.path.with_name("run.replaced-1")
    leftover.mkdir()
    (leftover / "x").write_text("mine")
    open_run(run.path, overwrite=True)
    assert tree(leftover) == {"x": b"mine"}
    assert sorted(p.name for p in run.path.parent.iterdir()) == ["run", "run.replaced-1"]


@pytest.mark.parametrize("marker", [None, b"{", b"[]", b'{"kind": "something else"}', b"\xff"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_that_is_no_run_is_never_touched(tmp_path, marker, overwrite):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "metrics.jsonl").write_text("{}\n")  # looks like ours, but only the marker counts
    if marker is not None:
        (videos / "run.json").write_bytes(marker)
    before = tree(videos)
    with pytest.raises(RunError, match="has other content and is not a run of this package, so it is left alone"):
        open_run(videos, overwrite=overwrite)
    assert tree(videos) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_at_the_path_is_refused_and_kept(tmp_path, overwrite):
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(RunError, match="run is a file: choose another path"):
        open_run(path, overwrite=overwrite)
    with pytest.raises(RunError, match=r"cannot be used .*: choose a folder that can be written"):
        open_run(path / "below", overwrite=overwrite)
    assert path.read_text() == "mine"


def test_resume_of_nothing_is_refused_and_makes_nothing(tmp_path):
    with pytest.raises(RunError, match="run does not exist, so nothing can be resumed: check the path"):
        open_run(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="is not a run of this package, so nothing can be resumed"):
        open_run(tmp_path, resume=True)


def test_overwrite_and_resume_together_are_refused(run):
    before = tree(run.path)
    with pytest.raises(ConfigError, match=r"overwrite and resume are both on; .*: choose one"):
        open_run(run.path, overwrite=True, resume=True)
    assert tree(run.path) == before


def test_small_files_of_the_run_are_written_whole(run):
    path = run.write_text("recipe.yaml", "name: caf\u00e9\n")
    assert path == run.path / "recipe.yaml"
    assert path.read_text(encoding="utf-8") == "name: caf\u00e9\n"
    (run.path / "taken").mkdir()
    with pytest.raises(RunError, match="taken cannot be written"):
        run.write_text("taken", "x")


def test_records_come_back_in_order_and_are_on_the_disk_at_once(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    records = [{"step": 1, "loss": 0.1 + 0.2, "bad": ["a", None, True]}, {"step": 2, "nested": {"x": 1e-300}}]
    for number, record in enumerate(records, start=1):
        log.append(record)
        assert MetricsLog.read(log.path) == records[:number]


def test_numbers_that_json_lacks_survive_in_strict_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"loss": math.nan, "norms": (math.inf, -math.inf, 1.0), "name": "Nan"})

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    strict = json.loads(log.path.read_text(), parse_constant=refuse)
    assert strict == {"loss": "NaN", "norms": ["Infinity", "-Infinity", 1.0], "name": "Nan"}
    (record,) = MetricsLog.read(log.path)
    assert math.isnan(record["loss"])
    assert record["norms"] == [math.inf, -math.inf, 1.0]
    assert record["name"] == "Nan"


def test_text_with_line_breaks_stays_one_record(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"note": "two\nlines\u2028and \u00e9"})
    assert log.path.read_bytes().count(b"\n") == 1
    assert MetricsLog.read(log.path) == [{"note": "two\nlines\u2028and \u00e9"}]


def test_truncation_drops_later_steps_and_keeps_the_rest_byte_for_byte(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        log.append({"step": step, "loss": 1 / step})
        log.append({"note": f"after {step}"})
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.truncate_after(3)
    assert log.path.read_bytes() == b"".join([*lines[:6], lines[7], lines[9]])
    log.append({"step": 4})
    assert [r["step"] for r in MetricsLog.read(log.path) if "step" in r] == [1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_truncation_drops_records_by_key_whatever_their_step(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for record in ({"step": 1, "loss": 0.5}, {"step": 1, "evaluation": {"top1": 1.0}}, {"step": 2, "loss": 0.25}):
        log.append(record)
    log.truncate_after(2, drop=("evaluation",))
    assert MetricsLog.read(log.path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_truncation_of_nothing_is_nothing(tmp_path):
    MetricsLog(tmp_path / "metrics.jsonl").truncate_after(0)
    assert list(tmp_path.iterdir()) == []


def test_torn_last_line_is_left_out_by_readers_and_cut_off_by_the_next_writer(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append({"step": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 2, "lo')
    assert MetricsLog.read(path) == [{"step": 1}]
    assert path.read_bytes() != whole  # a reader changes nothing: the line may be in writing
    log = MetricsLog(path)
    assert path.read_bytes() == whole
    log.append({"step": 2})
    assert MetricsLog.read(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_whole_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with pytest.raises(
        RunError, match=r"metrics.jsonl line 2 is not a JSON object; the file is damaged: delete that line"
    ):
        MetricsLog.read(path)


def test_missing_metrics_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be read \(.*\): check the path"):
        MetricsLog.read(tmp_path / "metrics.jsonl")


FULL_DISK = """
import resource, sys
from pathlib import Path
from videomae.engine.runlog import MetricsLog
from videomae.errors import RunError

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
log = MetricsLog(Path(sys.argv[1]))
try:
    for step in range(1000):
        log.append({"step": step, "text": "x" * 100})
except RunError as error:
    print(step)
    print(error)
"""


def test_full_disk_is_one_line_and_costs_no_earlier_record(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("limits the file size the Linux way")
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    failed_step, message = done.stdout.splitlines()
    assert message == f"{path} cannot be written (File too large): free space or choose another output folder"
    assert int(failed_step) > 10
    assert [record["step"] for record in MetricsLog.read(path)] == list(range(int(failed_step)))
    MetricsLog(path).append({"step": int(failed_step)})
    assert len(MetricsLog.read(path)) == int(failed_step) + 1
