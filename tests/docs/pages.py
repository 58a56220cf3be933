"""The pages and what stands in them: fenced blocks, links, headings."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, where it stands and in which language."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str = "") -> list[Block]:
    """All blocks of a language, or of all."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[1], match[2]))
    return [block for block in found if language in ("", block.language)]


def commands() -> list[tuple[str, str]]:
    """Each line of the console blocks, with its place."""
    return [
        (f"{block.page.relative_to(ROOT)}:{block.line + at}", line)
        for block in blocks("console")
        for at, line in enumerate(block.text.splitlines(), start=1)
    ]


def without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Links that lead to other pages here."""
    found = _LINK.findall(without_blocks(page))
    return [link for link in found if "://" not in link]


def anchors(page: Path) -> set[str]:
    """The names by which headings of a page can be linked."""
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
        for heading in _HEADING.findall(without_blocks(page))
    }
