"""What a run was computed with, from its `environment.json`: as facts, and as blocks of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from videomae.report.page import Block, Facts, Table, flat_settings, shown

SHORT_COMMIT = 12  # digits of a commit that are shown
GIT = {"source": "commit of videomae", "directory": "commit of the working directory"}
# Of an entry: not what differs between any two runs and says nothing of what they compute.
NOT_SHOWN = ("time", "step", "command", "recipe", "total_steps", "git", "variables", "versions")


def made_with_facts(start: Mapping[str, Any]) -> dict[str, str]:
    """Return an entry of `environment.json` as names and texts, in the order in which they are shown."""
    git = start.get("git") or {}
    facts: dict[str, object] = dict(start.get("versions") or {})
    facts |= {title: commit_text(git.get(name)) for name, title in GIT.items()}
    facts |= flat_settings({name: value for name, value in start.items() if name not in NOT_SHOWN})
    facts |= start.get("variables") or {}
    return {name: shown(value) for name, value in facts.items()}


def commit_text(found: Any) -> str:
    """Return a commit for people; of a folder that is in no repository `none`."""
    if not isinstance(found, Mapping) or not found.get("commit"):
        return "none"
    return f"{str(found['commit'])[:SHORT_COMMIT]}{', with changes' if found.get('dirty') else ''}"


def made_with_blocks(starts: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return what the last start of a run was made with, and in what earlier ones differ."""
    if not starts:
        return []
    last = made_with_facts(starts[-1])
    facts = {"command": str(starts[-1].get("command", "none")), **last}
    caption = "Environment" if len(starts) == 1 else f"Environment of the last of {len(starts)} starts"
    blocks: list[Block] = [Facts(facts, caption)]
    rows = [
        (
            str(start.get("time", "")),
            int(start.get("step", 0)),
            name,
            before.get(name, "none"),
            last.get(name, "none"),
        )
        for start in starts[:-1]
        for before in [made_with_facts(start)]
        for name in dict.fromkeys([*last, *before])
        if before.get(name, "none") != last.get(name, "none")
    ]
    if rows:
        columns = ("started", "after step", "what", "then", "at the last start")
        blocks.append(Table(columns, rows, "What was otherwise at earlier starts"))
    return blocks
