"""What of an agent's doings is seen by whom, and in words what is not covered and how to close it.
Pure: rows of the history in, lines out."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

Row = dict[str, Any]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls were seen by the agent's SDK and a gateway, by one of them only; and how many
    a guard refused (these are not among the others unless somebody saw them made)."""

    both: int = 0
    sdk: int = 0
    gateway: int = 0
    denied: int = 0

    @property
    def calls(self) -> int:
        return self.both + self.sdk + self.gateway


class PathLine(msgspec.Struct, frozen=True, kw_only=True):
    """What passed a gateway by one protocol: `openai anthropic mcp decide`. `guards` ran there, on
    streams too. `redacted`: how many values were taken out."""

    path: str
    calls: int
    streamed: int
    announced: int
    refused: int
    cut: int
    redacted: int
    guards: list[str]
    provider_tools: list[str]


class RunCoverage(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    models: Seen
    tools: Seen


class CoverageLine(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. `not_covered` says in words what nobody but the agent's own process sees or
    judges, and how to close it; empty when there is nothing to say."""

    agent: str
    environment: str
    models: Seen
    tools: Seen
    paths: list[PathLine]
    provider_tools: list[str]
    not_covered: list[str]
    runs: list[RunCoverage] = []


def lines_of(
    counts: Iterable[Row], paths: Iterable[Row], runs: Iterable[Row], gateway: str
) -> list[CoverageLine]:
    """`gateway`: the URL of one that serves, or ""."""
    by_place: dict[tuple[str, str], list[PathLine]] = {}
    for row in paths:
        line = msgspec.convert(row, PathLine)
        by_place.setdefault((row["agent"], row["environment"]), []).append(line)
    of_runs: dict[tuple[str, str], list[RunCoverage]] = {}
    for row in runs:
        seen = RunCoverage(
            run_id=row["run_id"], models=_seen(row, "model"), tools=_seen(row, "tool")
        )
        of_runs.setdefault((row["agent"], row["environment"]), []).append(seen)
    found = []
    for row in counts:
        place = (row["agent"], row["environment"])
        models, tools = _seen(row, "model"), _seen(row, "tool")
        passed = by_place.get(place, [])
        provider_tools = sorted({name for line in passed for name in line.provider_tools})
        found.append(CoverageLine(
            agent=place[0], environment=place[1], models=models, tools=tools, paths=passed,
            provider_tools=provider_tools, runs=of_runs.get(place, []),
            not_covered=words_of(models, tools, provider_tools, gateway),
        ))  # fmt: skip
    return found


def words_of(models: Seen, tools: Seen, provider_tools: Sequence[str], gateway: str) -> list[str]:
    """What is not covered, and how to close it: a sentence each."""
    found: list[str] = []
    if models.sdk:
        where = gateway or "GATEWAY"
        found.append(
            f"{_share(models.sdk, models.calls)} of its model calls did not pass the gateway: set "
            f"OPENAI_BASE_URL={where}/openai/v1 or ANTHROPIC_BASE_URL={where}/anthropic with a key "
            "of its own (`checkrein agent add`) as its API key, or start it with "
            "`checkrein run --gateway`"
        )  # fmt: skip
    if tools.sdk:
        found.append(
            f"{_share(tools.sdk, tools.calls)} of its tool calls ran in its own process, judged "
            "there and nowhere else: serve these tools by MCP through the gateway, or start it "
            "with `checkrein run --confine`, so that they reach nothing else"
        )
    if models.gateway or tools.gateway:
        what = " and ".join(
            f"{seen.gateway} {name} calls" for seen, name in ((models, "model"), (tools, "tool"))
            if seen.gateway
        )  # fmt: skip
        found.append(
            f"{what} were seen by the gateway only: tools that it runs itself between them are "
            "known by what its models say of them; `checkrein run` or `checkrein.instrument()` in "
            "the program sees them too"
        )
    if provider_tools:
        found.append(
            f"the provider itself runs {', '.join(provider_tools)}: no guard stands before such a "
            "call; leave them out of its requests, or offer a tool of your own in their place"
        )
    return found


def _seen(row: Row, kind: str) -> Seen:
    return Seen(**{name: row[f"{kind}_{name}"] for name in ("both", "sdk", "gateway", "denied")})


def _share(part: int, whole: int) -> str:
    """Never 0 % of something, never 100 % of less than all."""
    percent = 100 if part == whole else min(99, max(1, round(100 * part / whole)))
    return f"{percent} % ({part})"
