"""Plain English: the words of the private dialect that this project once spoke do not come back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = re.compile(
    r"\b(anew|wish(es)?|whoever|for want of|keeps? the books|beforehand|so many|nobody|of its own accord|"
    r"run the same command again|goes? on from|told apart|vouch(ed|es)?|zombies?)\b",
    re.IGNORECASE,
)
WRITTEN = ("models", "storage", "pipeline", "flows", "benchmarks", "docs", "README.md", "CONTRIBUTING.md")


def texts() -> list[Path]:
    """Every tracked text that a person reads, apart from results of measurements."""
    listed = subprocess.run(["git", "ls-files", *WRITTEN], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.splitlines() if name.endswith((".py", ".md", ".yaml", ".html"))]
    return [ROOT / name for name in names if "results/" not in name]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the list of tracked files")
def test_no_banned_word_is_written():
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := BANNED.search(line))
    ]
    assert not lines, "\n".join(lines)
