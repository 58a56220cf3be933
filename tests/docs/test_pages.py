"""The documentation holds together: pages, links, the build."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, ROOT, anchors, blocks, links

KNOWN = {
    "", "bash", "conditions", "console", "decisions", "json", "python", "refused", "text", "toml",
    "yaml",
}  # fmt: skip


def _nav(entry: Any) -> list[str]:
    match entry:
        case str():
            return [entry]
        case dict():
            return [page for value in entry.values() for page in _nav(value)]
        case _:
            return [page for each in entry for page in _nav(each)]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = _nav(config["nav"])
    assert len(named) == len(set(named))
    assert set(named) == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_block_says_what_it_is() -> None:
    for block in blocks():
        assert block.language in KNOWN, f"{block.name}: {block.language!r}"
        if block.language == "":
            assert block.page.name == "CONTRIBUTING.md", f"{block.name} has no language"


def test_the_documentation_is_built_without_a_word(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet",
         "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "site" / "index.html").exists()


def test_no_line_ends_in_blanks() -> None:
    for page in PAGES:
        for line in page.read_text().splitlines():
            assert line == line.rstrip(), f"{page.name}: {line[:60]!r}"
