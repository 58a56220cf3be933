"""Tables of the documentation against the code they tell of."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkrein.cli.root import _COMMANDS
from checkrein.detect.catalogue import detectors
from checkrein.events import fit, limits
from checkrein.events.types import COMMON, TYPES
from checkrein.policy import pact, pact_rules
from checkrein.policy.types import Pact
from checkrein.server.api import routes
from checkrein.store import retention
from tests.docs.pages import DOCS, PAGES, ROOT, anchors

EVENTS = (DOCS / "events.md").read_text()
HTTP = (DOCS / "http.md").read_text()
_ROW = re.compile(r"^\| `([a-z.]+)` \| ((?:`\w+` ?)+) \| [^|]+ \|$", re.MULTILINE)


def _section(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_table_of_events_is_the_types() -> None:
    told = {kind: re.findall(r"`(\w+)`", fields) for kind, fields in _ROW.findall(EVENTS)}
    real = {
        kind: [f.name for f in msgspec.structs.fields(type_) if f.name not in COMMON]
        for kind, type_ in TYPES.items()
    }
    assert told == real


def test_the_common_fields_are_told_in_order() -> None:
    section = _section(EVENTS, "What every event carries")
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == COMMON


def test_events_that_nothing_records_are_the_ones_said_so() -> None:
    said = set(re.findall(r"^\| `([a-z.]+)` \|.*¹ \|$", EVENTS, re.MULTILINE))
    used: set[str] = set()
    for path in (ROOT / "src/checkrein").rglob("*.py"):
        if path.parent.name != "events":
            used |= _events_named(path.read_text())
    assert said == {kind for kind, type_ in TYPES.items() if type_.__name__ not in used}


def _events_named(source: str) -> set[str]:
    """The names of types of events that a module imports, or reads from their module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "checkrein.events.types":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id in ("events", "types") else set()
    return found


def test_limits_are_the_real_ones() -> None:
    section = _section(EVENTS, "Limits, and what is cut")
    for number in (
        limits.EVENT_BYTES_MAX, limits.TEXT_BYTES_MAX, limits.ITEMS_MAX, limits.DEPTH_MAX,
        limits.PAYLOAD_CHARS_MAX, limits.KEY_CHARS_MAX, limits.HASH_CHARS_MAX, *fit._LADDER[1:-1],
    ):  # fmt: skip
        assert re.search(rf"\b{number}\b", section), number
    long = "x" * 120_000
    cut: Any = limits.cut_text(long)
    assert set(cut) == {"cut", "original_length", "sha256"}
    assert limits.cut_string(long).rpartition("\n")[2].startswith("[cut: 120000 characters, sha256")


def test_how_long_events_are_kept() -> None:
    section = _section(EVENTS, "How long they are kept")
    summaries, forever, rest = section.split(";")
    named = set(re.findall(r"`([a-z.]+)`", summaries))
    assert named == set(retention.SUMMARIES)
    assert f"{retention.SUMMARY_DAYS} days" in summaries
    assert f"{retention.DETAIL_DAYS} days" in rest
    assert set(re.findall(r"`([a-z.]+)`", forever)) < set(retention.KEPT_FOREVER)


def test_every_detector_has_its_section() -> None:
    told = anchors(DOCS / "detectors.md") - {"detectors"}
    real = [detector.name for detector in detectors()]
    assert told == set(real)
    silent = [detector.name for detector in detectors() if not detector.blames]
    page = (DOCS / "detectors.md").read_text()
    sentence = next(line for line in page.splitlines() if "blame nobody" in line)
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", sentence)) == {"halt", *silent}


@pytest.mark.parametrize(
    ("place", "name", "words"),
    [
        ("loop", "", ["3 | 5 | 8", "6 | 10 | 16"]),
        ("bypass", "", ["30 seconds", "64 different"]),
        ("duplicate_effect", "_EFFECTS_MAX", ["{} effects"]),
        ("token_surge", "FLOOR_TOKENS", ["{:,} output tokens"]),
        ("token_surge", "HISTORY_MIN", ["less than {} calls"]),
        ("token_surge", "E_WARN", ["exceeds {:,.0f}"]),
        ("token_surge", "E_BREACH", ["exceeds {:,.0f}"]),
        ("spend", "HOURS_MIN", ["before there are {}"]),
        ("spend", "HOURS_KEPT", ["the last {} of them"]),
        ("spend", "MULTIPLE", ["{:.0f} times"]),
        ("spend", "FLOOR_USD", ["more than {} US dollars"]),
        ("unknown_tool", "_TOOLS_MAX", ["more than {} tools"]),
        ("tool_failure", "SHARE_CALLS_MIN", ["at least eight"]),
    ],
)
def test_numbers_of_the_detectors(place: str, name: str, words: list[str]) -> None:
    import importlib

    module = importlib.import_module(f"checkrein.detect.{place}")
    section = _section((DOCS / "detectors.md").read_text(), place.replace("_", "-"))
    for form in words:
        assert (form.format(getattr(module, name)) if name else form) in section
    if name == "SHARE_CALLS_MIN":
        assert getattr(module, name) == 8


def test_loops_go_up_as_told() -> None:
    from checkrein.detect.base import steps_up

    assert (steps_up(3), steps_up(6)) == ((3, 5, 8), (6, 10, 16))


def test_the_keys_of_a_pact_are_told() -> None:
    section = _section((DOCS / "pacts.md").read_text(), "The keys")
    told = set(re.findall(r"^\| `([a-z_]+)", section, re.MULTILINE))
    assert told == set(pact._TOP)
    of_tools = set(re.findall(r"^\| `tools\.NAME\.([a-z_]+)` \|", section, re.MULTILINE))
    assert of_tools == set(pact_rules._TOOL)
    default = Pact()
    assert f"| `{default.approval_s / 60:.0f}m` |" in section
    assert f"| {default.loops.same_call} |" in section
    assert f"`{default.warn_at:.0%}`" in section
    assert f"2 to {pact.LOOPS_MAX}" in section


def test_bounds_of_the_language_are_the_real_ones() -> None:
    from checkrein.policy.conditions import parsing, values
    from checkrein.policy.flow import builtin, compiling, directives, grammar, index, profile
    from checkrein.policy.pact_text import TEXT_BYTES_MAX
    from checkrein.policy.sequences import compiling as sequences
    from checkrein.policy.sequences import tracks, words

    def section(page: str, heading: str) -> str:
        return _section((DOCS / page).read_text(), heading).replace(",", "")

    bounds = section("conditions.md", "Bounds")
    assert f"{parsing.BYTES_MAX // 1024} kB" in bounds
    for number in (parsing.DEPTH_MAX, parsing.NODES_MAX, values.STEPS_MAX):
        assert re.search(rf"\b{number}\b", bounds), number
    bounds = section("sequences.md", "Bounds")
    for number in (
        tracks.ENTRIES_MAX, tracks.KEYED_ENTRIES_MAX, tracks.KEYS_MAX, tracks.OPEN_MAX,
        sequences.RULES_MAX, words.RULE_CHARS_MAX,
    ):  # fmt: skip
        assert re.search(rf"\b{number}\b", bounds), number
    unseen = section("flow.md", "What it cannot see")
    for number in (
        index.IDENTIFIERS_MAX, index.TEXT_CHARS_MAX // 1024, index.SOURCES_MAX,
        compiling.RULES_MAX, grammar.RULE_CHARS_MAX,
    ):  # fmt: skip
        assert re.search(rf"\b{number}\b", unseen), number
    rules = section("flow.md", "The built-in rules")
    assert f"fewer than {profile.MATURE_RUNS} runs" in rules
    assert f"{directives.WINDOW_CHARS} characters" in rules
    assert (profile.APPROVALS_TO_PROMOTE, profile.HISTORY_MIN) == (3, 6)  # in words there
    assert "three approvals" in rules
    assert "fewer than six runs" in rules
    for name in builtin.BUILTINS:
        assert f"| `{name}` |" in rules
    assert f"at most {TEXT_BYTES_MAX // 1024} KiB" in section("pacts.md", "The keys")


def test_every_name_of_a_condition_is_told() -> None:
    from checkrein.policy.conditions import nodes, signatures
    from checkrein.policy.conditions.compiling import STANDARD

    page = (DOCS / "conditions.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", _section(page, "What it can read")))
    assert set(STANDARD) <= named
    table = _section(page, "Operators and functions")
    of_time = {name for name in signatures.METHODS if name.startswith("get")}
    for word in {*signatures.FUNCTIONS, *signatures.METHODS, *nodes.MACROS} - of_time:
        assert re.search(rf"\b{word}\b", table), word


def test_every_command_has_its_section() -> None:
    page = (DOCS / "terminal.md").read_text()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert {name for heading in headings for name in heading.split(", ")} == set(_COMMANDS)


def test_every_route_is_told_and_every_told_route_is_there() -> None:
    told = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (\S+)`", HTTP, re.MULTILINE))
    handlers: Any = routes.ALL
    real = {
        (method, re.sub(r":\w+}", "}", path))
        for handler in handlers
        for path in handler.paths
        for method in handler.http_methods
        if method not in ("HEAD", "OPTIONS")
    }
    assert told == real


def test_every_error_word_is_told() -> None:
    source = "".join(p.read_text() for p in (ROOT / "src/checkrein/server/api").rglob("*.py"))
    used = set(re.findall(r'"((?:bad|wrong|not|unknown|ambiguous|too|method)_\w+)"', source))
    used -= {"not_haltable"}
    section = _section(HTTP, "Errors")
    assert used
    for word in used:
        assert f"`{word}`" in section, word


def test_settings_of_the_environment_are_told_and_exist() -> None:
    name = re.compile(r"CHECKREIN_[A-Z_]+")
    code = {
        found for path in (ROOT / "src").rglob("*.py") for found in name.findall(path.read_text())
    }
    everywhere = {found for page in PAGES for found in name.findall(page.read_text())}
    told = set(name.findall((DOCS / "running.md").read_text()))
    assert everywhere - code == set(), "told of, but not there"
    assert code - told == set(), "there, but docs/running.md does not tell of it"


def test_the_public_names_are_told() -> None:
    import checkrein

    text = "".join(Path(page).read_text() for page in PAGES) + (ROOT / "CHANGELOG.md").read_text()
    for public in set(checkrein.__all__) - {"__version__", "current_run"}:
        assert re.search(rf"\b{public}\b", text), public
