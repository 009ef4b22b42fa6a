"""Every code block of the documentation runs, or says why it does not.

A block opened with three backticks and `python` is a program of its own; in a `console` block the lines after
`$ ` are run by bash, and the other lines are read as their output and not compared; a `bash` block is run whole.
Blocks of nothing but `videomae` commands are run without a shell. The blocks of one document run in order in one
process (`documents.py`) and in one folder, which at first holds

    videos/<class>/*.mp4    two small motion videos for each of the eight classes
    clip.mp4                one of them
    model/                  a tiny untrained classifier of those classes, saved with its processor

A block marked `<!-- not run: reason -->` is checked and reported as skipped with its reason.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from documents import (
    REPO,
    RUN,
    Block,
    code_blocks,
    plain_commands,
    run_steps,
    shell_script,
    soundness_faults,
    split_make,
    steps_of,
    subcommands,
)

LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")

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


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name, blocks in TO_RUN.items() if blocks])
def test_the_blocks_of_a_document_run_in_order(document: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    blocks = TO_RUN[document]
    folder = tmp_path / "reader"
    folder.mkdir()
    if any(block.language == "python" or split_make(shell_script(block))[0].strip() for block in blocks):
        shutil.copytree(request.getfixturevalue("material"), folder, dirs_exist_ok=True)
    run_steps([step for block in blocks for step in steps_of(block, folder)], folder)


@pytest.mark.parametrize("block", NOT_RUN, ids=[block.place for block in NOT_RUN])
def test_a_block_that_is_not_run_uses_existing_subcommands(block: Block, tmp_path: Path) -> None:
    found = subcommands(shell_script(block)) if block.language != "python" else []
    run_steps([(block.place, "videomae", [name, "--help"]) for name in found], tmp_path)
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


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("# steps; done\nvideomae predict a 'b c' \\\n  --top_k 3\n", [["predict", "a", "b c", "--top_k", "3"]]),
        ("videomae predict a > b\n", None),
        ("""videomae predict "{}" '*'\n""", [["predict", "{}", "*"]]),
        ("""videomae predict "$a"\n""", None),
        ("videomae predict a\nls\n", None),
        ("", []),
    ],
)
def test_a_shell_is_started_for_what_needs_one(script: str, commands: list[list[str]] | None) -> None:
    assert plain_commands(script) == commands


def test_subcommands_are_those_of_the_command_alone() -> None:
    script = "videomae predict clip.mp4\ncd videomae && .venv/bin/videomae demo\nls my-videomae x\n"
    assert subcommands(script) == ["demo", "predict"]


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
    ("language", "code", "status"),
    [
        ("python", "raise SystemExit(3)", 3),
        ("python", "raise ValueError", 1),
        ("console", "$ (exit 3)\n$ true", 3),
        ("bash", "(exit 3) | cat\ntrue", 3),
        ("console", "$ videomae inspect-nothing", 2),
    ],
)
def test_a_block_that_fails_fails_the_test_and_names_its_place(
    language: str, code: str, status: int, tmp_path: Path
) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"made_up\.md:4: exit status {status}\n$"):
        run_steps(steps_of(only(made_up(language, code)), tmp_path), tmp_path)


def test_blocks_run_in_the_folder_with_this_python_first_on_the_path(tmp_path: Path) -> None:
    blocks = [
        only(made_up("python", "open('a.txt', 'w').write('made')")),
        only(made_up("console", "$ cat a.txt\nmade\n$ command -v python > b.txt")),
    ]
    run_steps([step for block in blocks for step in steps_of(block, tmp_path)], tmp_path)
    assert (tmp_path / "b.txt").read_text().strip() == str(Path(sys.executable).parent / "python")
