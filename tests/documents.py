"""The code blocks of Markdown documents: found, checked, run.

Python and shell blocks are run; other languages are shown only and must be in `SHOWN`, so that no `sh` slips through.
`make` commands are not run, since they would run the tests: their targets must exist. A block with the comment
`<!-- not run: reason -->` on the line before it is checked for sound syntax and existing subcommands alone.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

import videomae

REPO = Path(__file__).parents[1]
RUN = {"python", "console", "bash"}
SHOWN = {"text", "yaml", "json", "toml", "powershell", "bibtex", "csv", "makefile"}
DOCUMENT_TIMEOUT_SECONDS = 600

FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([^\s`]*)")
QUOTED = re.compile(r'"[^"$`\\!]*"|\'[^\']*\'')  # what a shell hands on as it is
MARKER = re.compile(r"^\s*<!--\s*not run\b:?\s*(.*?)\s*-->\s*$")
TARGET = re.compile(r"^([a-z][\w-]*):(?!=)", flags=re.MULTILINE)


class Block(NamedTuple):
    """One code block: where it stands, what it is, and why it is not run (None: it is)."""

    document: str
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def place(self) -> str:
        """Document and line of the opening fence."""
        return f"{self.document}:{self.line}"


def code_blocks(text: str, document: str) -> list[Block]:
    """Cut the code blocks out of a Markdown text.

    Raises:
        ValueError: If a block is never closed or in a language this file does not know, or if a marker has no
            reason or stands before anything but a block that would run.
    """
    blocks: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        marker = MARKER.match(lines[number])
        if marker:
            number += 1
            if not marker.group(1):
                raise ValueError(f"{document}:{number}: 'not run' without a reason: say why")
        fence = FENCE.match(lines[number]) if number < len(lines) else None
        if marker and (fence is None or fence.group(2) not in RUN):
            raise ValueError(f"{document}:{number}: 'not run' must stand on the line before a block that would run")
        if fence is None:
            number += 1
            continue
        start, (ticks, language) = number, fence.groups()
        if language not in RUN | SHOWN:
            raise ValueError(f"{document}:{start + 1}: block in {language!r}: use one of {sorted(RUN | SHOWN)}")
        number += 1
        while number < len(lines) and not lines[number].strip().startswith(ticks):
            number += 1
        if number == len(lines):
            raise ValueError(f"{document}:{start + 1}: the block is never closed")
        code = textwrap.dedent("\n".join(lines[start + 1 : number])) + "\n"
        blocks.append(Block(document, start + 1, language, code, marker.group(1) if marker else None))
        number += 1
    return blocks


def shell_script(block: Block) -> str:
    """Return what bash is to run: a console block's commands with their continuation lines, a bash block whole."""
    if block.language == "bash":
        return block.code
    commands, goes_on = [], False
    for line in block.code.splitlines():
        if line.startswith("$ ") or goes_on:
            commands.append(line.removeprefix("$ ") if not goes_on else line.removeprefix("> "))
            goes_on = line.endswith("\\")
    if not commands:
        raise ValueError(f"{block.place}: a console block without a line that starts with '$ '")
    return "\n".join(commands) + "\n"


def split_make(script: str) -> tuple[str, list[str]]:
    """Return a script without its `make` lines, and the targets that those lines name."""
    kept, targets = [], []
    for line in script.splitlines():
        words = shlex.split(line, comments=True) if line.strip().startswith("make") else []
        if words[:1] == ["make"]:
            targets += [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        else:
            kept.append(line)
    return "\n".join(kept) + "\n", targets


def subcommands(script: str) -> list[str]:
    """Return the subcommands with which a script calls the `videomae` command, each once, sorted."""
    return sorted(set(re.findall(r"(?:^|[;&|]\s*|/)videomae ([a-z][\w-]*)", script, flags=re.MULTILINE)))


def soundness_faults(block: Block) -> list[str]:
    """Say what is wrong with a block as far as it can be told without running it."""
    if block.language == "python":
        try:
            tree = ast.parse(block.code)
        except SyntaxError as error:
            return [f"{block.place}: {error}"]
        taken = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "videomae"
            for alias in node.names
        ]
        return [f"{block.place}: videomae has no {name}" for name in taken if name not in videomae.__all__]
    script, targets = split_make(shell_script(block))
    known = TARGET.findall((REPO / "Makefile").read_text(encoding="utf-8"))
    faults = [f"{block.place}: the Makefile has no target {name}" for name in targets if name not in known]
    syntax = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    if syntax.returncode:
        faults.append(f"{block.place}: {syntax.stderr}")
    return faults


def environment() -> dict[str, str]:
    """Return the environment of a reader who has activated this virtual environment, without the internet."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}


# One process for a document, which imports torch once; the end of its output names the place of a failure.
RUNNER = """
import json, runpy, subprocess, sys, traceback

from videomae.cli import main

def run(kind, what):
    try:
        if kind == "python":
            runpy.run_path(what, run_name="__main__")
            return 0
        if kind == "videomae":
            return main(what)
        return subprocess.run(["bash", "-euo", "pipefail", "-c", what]).returncode
    except SystemExit as stop:
        return stop.code or 0
    except BaseException:
        traceback.print_exc()
        return 1

for place, kind, what in json.loads(sys.argv[1]):
    print("==", place, flush=True)
    if status := run(kind, what):
        sys.exit(f"{place}: exit status {status}")
"""


def plain_commands(script: str) -> list[list[str]] | None:
    """Return the arguments of every `videomae` command of a script, or None if it needs a shell."""
    lines = [line for line in script.replace("\\\n", " ").splitlines() if line.strip() and line.lstrip()[0] != "#"]
    if set(QUOTED.sub("", "".join(lines))) & set("|&;<>$`*?~(){}[]!"):
        return None
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in commands] if all(words[0] == "videomae" for words in commands) else None


def steps_of(block: Block, folder: Path) -> list[tuple[str, str, str | list[str]]]:
    """Return what `RUNNER` is to do for a block: place, kind, and the script or the arguments."""
    if block.language == "python":
        program = folder.parent / f"{folder.name}_line_{block.line}.py"
        program.write_text(block.code, encoding="utf-8")
        return [(block.place, "python", str(program))]
    script, _ = split_make(shell_script(block))
    commands = plain_commands(script)
    if commands is None:
        return [(block.place, "bash", script)]
    return [(block.place, "videomae", arguments) for arguments in commands]


def run_steps(steps: list[tuple[str, str, str | list[str]]], folder: Path) -> None:
    """Run steps in a folder, in one process; fail with the end of its output."""
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(steps)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DOCUMENT_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode:
        pytest.fail(result.stdout[-4000:], pytrace=False)
