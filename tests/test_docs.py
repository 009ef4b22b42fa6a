"""Every code block of the documentation runs, or says why it does not.

A block opened with three backticks and `python` is a program of its own; in a `console` block the lines after
`$ ` are run by bash, and the other lines are read as their output and not compared; a `bash` block is run whole.
The blocks of one document run in order in one folder, which at first holds

    videos/<class>/*.mp4    two small motion videos for each of the eight classes
    clip.mp4                one of them
    model/                  a tiny untrained classifier of those classes, saved with its processor

`make` commands are not run, since they would run these tests: their targets must exist. A block with the comment
`<!-- not run: reason -->` on the line before it is checked for sound syntax and existing verbs, then reported as
skipped with its reason. Other languages are never run and must be in `SHOWN`, so that no `sh` slips through.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
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
BLOCK_TIMEOUT_SECONDS = 300

FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([^\s`]*)")
MARKER = re.compile(r"^\s*<!--\s*not run\b:?\s*(.*?)\s*-->\s*$")
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
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


def verbs(script: str) -> list[str]:
    """Return the verbs with which a script calls the `videomae` command, each once, sorted."""
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


def run_block(block: Block, folder: Path) -> None:
    """Run one block in a folder; fail with the block's place and the end of its output."""
    if block.language == "python":
        program = folder.parent / f"{folder.name}_line_{block.line}.py"
        program.write_text(block.code, encoding="utf-8")
        command = [sys.executable, str(program)]
    else:
        script, _ = split_make(shell_script(block))
        command = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BLOCK_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode:
        pytest.fail(f"{block.place}: exit status {result.returncode}\n{result.stdout[-4000:]}", pytrace=False)


DOCUMENTS = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").rglob("*.md"))]
BLOCKS = {
    path.relative_to(REPO).as_posix(): code_blocks(
        path.read_text(encoding="utf-8"), path.relative_to(REPO).as_posix()
    )
    for path in DOCUMENTS
}
RUNNABLE = [block for blocks in BLOCKS.values() for block in blocks if block.language in RUN]
NOT_RUN = [block for block in RUNNABLE if block.reason is not None]
TO_RUN = {name: [block for block in RUNNABLE if block.document == name and block.reason is None] for name in BLOCKS}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the documents may use: videos, one clip, a tiny saved classifier."""
    from videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
    from videomae.data.synthetic import MOTION_CLASSES, write_motion_videos

    folder = tmp_path_factory.mktemp("material")
    write_motion_videos(folder / "videos", videos_per_class=2, size=32, num_frames=32)
    shutil.copy(folder / "videos" / "left" / "left_0000.mp4", folder / "clip.mp4")
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
        id2label=dict(enumerate(MOTION_CLASSES)),
        label2id={name: label for label, name in enumerate(MOTION_CLASSES)},
    )
    VideoMAEForVideoClassification(config).save_pretrained(folder / "model")
    VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder / "model"
    )
    return folder


@pytest.mark.parametrize("block", RUNNABLE, ids=[block.place for block in RUNNABLE])
def test_every_block_is_sound(block: Block) -> None:
    assert soundness_faults(block) == []


@pytest.mark.parametrize("document", [name for name, blocks in TO_RUN.items() if blocks])
def test_the_blocks_of_a_document_run_in_order(document: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    blocks = TO_RUN[document]
    folder = tmp_path / "reader"
    folder.mkdir()
    if any(block.language == "python" or split_make(shell_script(block))[0].strip() for block in blocks):
        shutil.copytree(request.getfixturevalue("material"), folder, dirs_exist_ok=True)
    for block in blocks:
        run_block(block, folder)


@pytest.mark.parametrize("block", NOT_RUN, ids=[block.place for block in NOT_RUN])
def test_a_block_that_is_not_run_uses_existing_verbs(block: Block, tmp_path: Path) -> None:
    for verb in verbs(shell_script(block)) if block.language != "python" else []:
        command = [sys.executable, "-m", "videomae", verb, "--help"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, f"{block.place}: {result.stderr}"
    pytest.skip(f"{block.place} checked but not run: {block.reason}")


def test_readme_begins_with_the_two_commands() -> None:
    targets = [
        target
        for block in BLOCKS["README.md"]
        if block.language in {"console", "bash"}
        for target in split_make(shell_script(block))[1]
    ]
    assert {"demo", "test"} <= set(targets)


@pytest.mark.parametrize("document", BLOCKS)
def test_links_inside_the_project_lead_somewhere(document: str) -> None:
    path = REPO / document
    targets = [link.split("#")[0] for link in LINK.findall(path.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (path.parent / target).exists()] == []


# The reader of documents itself, on made-up texts.

TICKS = "`" * 3


def made_up(language: str, code: str, *, before: str = "") -> str:
    """Return a Markdown text with one block."""
    return f"# Title\n\n{before}\n{TICKS}{language}\n{code}\n{TICKS}\n"


def only(text: str) -> Block:
    """Return the one block of a text."""
    (block,) = code_blocks(text, "made_up.md")
    return block


def test_blocks_come_with_line_language_and_code() -> None:
    text = made_up("python", "x = 1\ny = 2") + "\ntext\n\n- item\n\n  ~~~bash\n  ls\n  ~~~\n"
    assert code_blocks(text, "made_up.md") == [
        Block("made_up.md", 4, "python", "x = 1\ny = 2\n", None),
        Block("made_up.md", 13, "bash", "ls\n", None),
    ]


def test_a_block_with_a_marker_carries_its_reason() -> None:
    assert only(made_up("bash", "rm x", before="<!-- not run: it deletes -->")).reason == "it deletes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (made_up("bash", "ls", before="<!-- not run -->"), "made_up.md:3: 'not run' without a reason"),
        (made_up("bash", "ls", before="<!-- not run: -->"), "made_up.md:3: 'not run' without a reason"),
        ("<!-- not run: lost -->\n\n" + made_up("bash", "ls"), "made_up.md:1: 'not run' must stand on the line"),
        (made_up("yaml", "a: 1", before="<!-- not run: idle -->"), "'not run' must stand on the line before"),
        ("<!-- not run: last line -->", "'not run' must stand on the line before"),
        (made_up("sh", "ls"), "made_up.md:4: block in 'sh': use one of"),
        (made_up("", "ls"), "made_up.md:4: block in '': use one of"),
        (made_up("bash", "ls").removesuffix(TICKS + "\n"), "made_up.md:4: the block is never closed"),
    ],
)
def test_a_text_that_could_hide_a_block_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        code_blocks(text, "made_up.md")


def test_console_commands_are_read_with_their_continuation_lines() -> None:
    block = only(made_up("console", "$ ls \\\n>   -l\nout $ put\n$ pwd\n/home"))
    assert shell_script(block) == "ls \\\n  -l\npwd\n"


def test_a_console_block_without_a_command_is_refused() -> None:
    with pytest.raises(ValueError, match="without a line that starts with"):
        shell_script(only(made_up("console", "videomae demo")))


def test_make_lines_are_taken_out_and_their_targets_read() -> None:
    script = "cd x\nmake -j2 demo test PYTHON=python3.12  # a minute\nmakeinfo y\n"
    assert split_make(script) == ("cd x\nmakeinfo y\n", ["demo", "test"])


def test_verbs_are_those_of_the_command_alone() -> None:
    script = "videomae predict clip.mp4\ncd videomae && .venv/bin/videomae demo\nls my-videomae x\n"
    assert verbs(script) == ["demo", "predict"]


@pytest.mark.parametrize(
    ("language", "code", "fault"),
    [
        ("python", "x = = 1", "invalid syntax"),
        ("python", "from videomae import Predictr", "videomae has no Predictr"),
        ("bash", "if true; then", "syntax error"),
        ("console", "$ make dmeo", "the Makefile has no target dmeo"),
    ],
)
def test_an_unsound_block_is_found_without_running_it(language: str, code: str, fault: str) -> None:
    faults = soundness_faults(only(made_up(language, code)))
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "raise SystemExit(3)"), ("console", "$ (exit 3)\n$ true"), ("bash", "(exit 3) | cat\ntrue")],
)
def test_a_block_that_fails_fails_the_test_and_names_its_place(language: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"made_up\.md:4: exit status 3"):
        run_block(only(made_up(language, code)), tmp_path)


def test_blocks_run_in_the_folder_with_this_python_first_on_the_path(tmp_path: Path) -> None:
    run_block(only(made_up("python", "open('a.txt', 'w').write('made')")), tmp_path)
    run_block(only(made_up("console", "$ cat a.txt\nmade\n$ command -v python > b.txt")), tmp_path)
    assert (tmp_path / "b.txt").read_text().strip() == str(Path(sys.executable).parent / "python")
