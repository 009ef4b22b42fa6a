from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from videomae.engine.environment import (
    command_line,
    environment,
    git_commit,
    read_environments,
    record_environment,
    source_commit,
)
from videomae.errors import RunError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit of one file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "code.py").write_text("x = 1\n")
    for words in ("init --quiet", "add code.py", "commit --quiet --message first"):
        git(folder, *words.split())
    return folder


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_folder_is_told_and_whether_tracked_files_differ_from_it(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert git_commit(repository) == {"commit": commit, "dirty": False}
    (repository / "notes.txt").write_text("not tracked")
    (repository / "runs").mkdir()
    assert git_commit(repository / "runs") == {"commit": commit, "dirty": False}
    (repository / "code.py").write_text("x = 2\n")
    assert git_commit(repository / "runs") == {"commit": commit, "dirty": True}


def test_a_folder_in_no_repository_and_a_missing_git_have_no_commit(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_commit(tmp_path) is None
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    assert git_commit(tmp_path / "empty") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(repository) is None


def test_asking_for_the_commit_leaves_the_repository_as_it_is(repository: Path) -> None:
    os.utime(repository / "code.py", (1, 1))  # which git would note in its index
    before = (repository / ".git" / "index").read_bytes()
    assert git_commit(repository) is not None
    assert (repository / ".git" / "index").read_bytes() == before


def test_the_environment_says_with_what_and_where_and_has_no_other_variables(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    facts = environment("cpu", ["/usr/bin/videomae", "pretrain", "a b", "--out", "runs/x"])
    assert facts["command"] == "videomae pretrain 'a b' --out runs/x"
    assert {"videomae", "python", "torch", "av", "numpy"} <= facts["versions"].keys()
    assert facts["device"] == "cpu"
    assert facts["threads"] >= 1
    assert facts["processor"]
    assert facts["git"]["directory"] == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    assert facts["git"]["source"] == source_commit()
    assert facts["variables"]["SLURM_JOB_ID"] == "77"
    assert "hunter2" not in json.dumps(facts)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/x/lib/videomae/__main__.py", "pretrain"], "videomae pretrain"),
        (["train.py", "--api-key", "hunter2", "--lr", "1"], "train.py --api-key '***' --lr 1"),
        (["train.py", "--HF_TOKEN=hunter2"], "train.py '--HF_TOKEN=***'"),
        (["videomae", "pretrain", "https://me:hunter2@host/v"], "videomae pretrain 'https://***@host/v'"),
        (["videomae", "pretrain", "s3://b/v?X-Sig=hunter2"], "videomae pretrain 's3://b/v?***'"),
        (["videomae", "pretrain", "v", "--data.train=a?b"], "videomae pretrain v '--data.train=a?b'"),
    ],
)
def test_a_command_line_is_kept_without_passwords_tokens_and_signatures(arguments: list[str], shown: str) -> None:
    assert command_line(arguments) == shown


def test_every_start_has_an_entry_and_a_damaged_file_is_warned_of_and_replaced(tmp_path: Path) -> None:
    assert read_environments(tmp_path) == []
    record_environment(tmp_path, {"host": "a"}, step=0)
    record_environment(tmp_path, {"host": "b"}, step=6)
    assert [(one["host"], one["step"]) for one in read_environments(tmp_path)] == [("a", 0), ("b", 6)]
    assert all(one["time"] for one in read_environments(tmp_path))
    for damaged in ("{", "[]", '{"starts": [1]}', "\x00"):
        (tmp_path / "environment.json").write_text(damaged)
        with pytest.warns(UserWarning, match=r"environment\.json is damaged and ignored .*: delete it"):
            assert read_environments(tmp_path) == []
    with pytest.warns(UserWarning, match="damaged"):
        record_environment(tmp_path, {"host": "c"}, step=9)
    assert [one["host"] for one in read_environments(tmp_path)] == ["c"]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "environment.json").mkdir()
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(
            RunError, match=r"environment\.json cannot be written \(Is a directory\): free space or choose"
        ),
    ):
        record_environment(tmp_path, {}, step=0)
