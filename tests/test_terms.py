"""One word for one thing: words that the project has given up for the field's do not come back.

The reader is a PyTorch engineer. A retired word is a regular expression, chosen so that ordinary English is not hit.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = Path("src") / "videomae"

SEARCHED = [PACKAGE, Path("docs"), Path("README.md"), Path("CHANGELOG.md")]
# The retired word, and what to say instead. Case is ignored.
RETIRED = {
    r"whole road|the road\b|road is open": "end to end; the pipeline runs",
    r"made on the spot": "synthetic, generated",
    r"learnt by heart": "overfit, memorized",
    r"freshly made|\bafresh\b|made anew": "randomly initialized",
    r"by luck|depends? on luck|without chance": "deterministic",
    r"number formats?\b": "compute dtype",
    r"matrix products?|\bproducts of\b": "matrix multiplication",
    r"\bdeviations?\b": "standard deviation, std",
    r"frame numbers?\b": "frame index",
    r"token numbers?\b": "token index",
    r"label numbers?\b|class numbers?\b": "label id, class id",
    r"same places|places of the grid": "spatial positions",
    r"left aside|passed over": "ignored, skipped",
    r"\bfates?\b": "status",
    r"networks?'s? answers?\b|answers? of the network": "output, logits",
    r"\bnetworks?\b": "model",
    r"\bverbs?\b": "subcommand",
    r"\bcures?\b": "hint, fix",
    r"\baloud\b": "with a warning",
    r"of one's own|of your own": "custom",
    r"\brecompute(?!d)\w*\b": "gradient checkpointing, activation checkpointing",
    r"\bbridged?\b": "projection",
    r"\bhouse\b|\brooms?\b|(?<!\.)\bfloors?\b|neighbour on": "architecture, package, layer",
    r"\bhonest\b": "say what it is: without ground-truth patch statistics",
    r"knows? nothing of": "leave it out, or 'independent of'",
}

# Ordinary uses of those words, taken out before the search.
ALLOWED = re.compile(
    r"no room for|room (for it )?is left|room left for|standard deviation|network file system|-m network"
    r"|network connection|`network\.`|net\|network\)|\"net\", \"network\"|(seeking to a|exact) frame numbers?",
    flags=re.IGNORECASE,
)


def texts(paths: list[Path]) -> list[Path]:
    """Return the files to search: Python, Markdown, YAML and HTML."""
    found = []
    for path in paths:
        whole = REPO / path
        files = sorted(whole.rglob("*")) if whole.is_dir() else [whole]
        found += [one for one in files if one.suffix in (".py", ".md", ".yaml", ".html")]
    return found


def uses(pattern: str, text: str) -> list[str]:
    """Return the lines of a text that use a retired word; a word broken over two lines counts too."""
    found = []
    text = ALLOWED.sub("", text)
    for match in re.finditer(pattern.replace(" ", r"\s+(?:#\s+)?"), text, flags=re.IGNORECASE):
        line = text.count("\n", 0, match.start()) + 1
        found.append(f"{line}: {' '.join(match[0].split())}")
    return found


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_does_not_come_back(pattern: str) -> None:
    found = [
        f"{path.relative_to(REPO)}:{use}"
        for path in texts(SEARCHED)
        for use in uses(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == [], f"say instead: {RETIRED[pattern]}"


def test_the_search_reads_what_it_should() -> None:
    assert all((REPO / path).exists() for path in SEARCHED)
    assert len(texts(SEARCHED)) > 40


@pytest.mark.parametrize(
    ("text", "is_used"),
    [
        ("the classifier is\n    # freshly   made", True),
        ("Frame numbers `[T]`", True),
        ("a network file system", False),
        ("pytest -m network tests", False),
        ("the standard deviation, not the variance", False),
        ("what the\nnetwork learns", True),
        ("only a lucky guess", False),
    ],
)
def test_retired_words_are_found_and_ordinary_ones_are_not(text: str, is_used: bool) -> None:
    assert any(uses(pattern, text) for pattern in RETIRED) == is_used
