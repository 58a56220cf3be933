"""The story of a demo as far as it has come: events in, lines to tell out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from checkrein.server.demo.cast import Part
from checkrein.world import is_uuid7, uuid7_time_ms

Tone = Literal["calm", "plain", "warn", "breach", "good"]
TEXT_CHARS_MAX = 400
CALLS_TOLD_MAX = 3


@dataclass(frozen=True)
class Line:
    """One thing that happened, as it is told. `at_s` counts from the beginning of the demo."""

    at_s: float
    agent: str
    what: str
    text: str
    tone: Tone = "plain"
    by: str = ""


@dataclass(frozen=True)
class Catch:
    """What was expected of a part has come true."""

    agent: str
    at_s: float
    by: str
    why: str


class Plot:
    """Tells what matters of the events it hears, and checks off each part once. Bounded: a few
    counts and one catch for each part. Runs that began before `since_ms` (since 1970) are of
    another play, whose recorders may only now have been found: they are passed over."""

    def __init__(self, cast: Sequence[Part], since_ms: int = 0) -> None:
        self.cast = {part.agent: part for part in cast}
        self.since_ms = since_ms
        self.catches: dict[str, Catch] = {}
        self.spoiled: dict[str, str] = {}
        self._told: dict[tuple[str, str], int] = {}

    @property
    def complete(self) -> bool:
        return len(self.catches) == len(self.cast)

    @property
    def missing(self) -> list[str]:
        return [agent for agent in self.cast if agent not in self.catches]

    def hear(self, event: dict[str, Any], at_s: float) -> list[Line]:
        """The lines that one event is worth."""
        part = self.cast.get(str(event.get("agent", "")))
        if part is None or not self._of_this_play(str(event.get("run_id", ""))):
            return []
        line = self._line(part, event, at_s)
        caught = self._caught(part, event, at_s)
        return [one for one in (line, caught) if one is not None]

    def _of_this_play(self, run_id: str) -> bool:
        return is_uuid7(run_id) and uuid7_time_ms(run_id) >= self.since_ms

    def _line(self, part: Part, event: dict[str, Any], at_s: float) -> Line | None:
        agent, kind = part.agent, event.get("type")
        match kind:
            case "run.start":
                text = f"runs: {part.does} ({part.made_with})"
                return Line(at_s, agent, "run.start", text)
            case "tool.invoked":
                if self._again(agent, "tool.invoked") > CALLS_TOLD_MAX:
                    return None
                return Line(at_s, agent, "tool.invoked", f"calls {event.get('tool', '?')}", "calm")
            case "model.response":
                return self._model(agent, event, at_s)
            case "scope.decision":
                return self._decision(agent, event, at_s)
            case "signal":
                level = str(event.get("level", ""))
                by = str(event.get("detector", ""))
                tone: Tone = "breach" if level == "breach" else "warn"
                return Line(at_s, agent, "signal", clean(event.get("why")), tone, by)
            case "command" if event.get("verb") == "halt":
                by = str(event.get("issued_by", ""))
                return Line(
                    at_s, agent, "command", f"halt: {clean(event.get('reason'))}", "warn", by
                )
            case "receipt":
                return self._receipt(agent, event, at_s)
            case "run.end":
                status, reason = event.get("status", "?"), clean(event.get("reason"))
                text = f"ends as {status}" + (f": {reason}" if reason else "")
                return Line(at_s, agent, "run.end", text)
            case _:
                return None

    def _model(self, agent: str, event: dict[str, Any], at_s: float) -> Line | None:
        if event.get("error") or self._again(agent, "model.response") > CALLS_TOLD_MAX:
            return None
        read, written = event.get("input_tokens", 0), event.get("output_tokens", 0)
        model = event.get("model", "the model")
        return Line(at_s, agent, "model.response", f"{model}: {read} + {written} tokens", "calm")

    def _decision(self, agent: str, event: dict[str, Any], at_s: float) -> Line | None:
        verdict, rule = event.get("verdict"), str(event.get("rule", ""))
        if verdict == "allow" or self._again(agent, f"{verdict} {rule}") > 1:
            return None
        tone: Tone = "breach" if verdict == "deny" else "warn"
        name = (event.get("action") or {}).get("name", "")
        text = f"{name}: {verdict}: {clean(event.get('reason'))}"
        return Line(at_s, agent, "scope.decision", text, tone, f"guard {event.get('guard', '')}")

    def _receipt(self, agent: str, event: dict[str, Any], at_s: float) -> Line | None:
        rungs = event.get("how") or []
        climbed = ", ".join(f"{rung.get('rung')} {_ms(rung.get('ms'))}" for rung in rungs)
        confirmed = event.get("confirmed") or "nobody yet"
        if not climbed or self._again(agent, f"receipt {event.get('command_id')} {confirmed}") > 1:
            return None
        text = f"{event.get('verb')}: {climbed}; confirmed by {confirmed}"
        return Line(at_s, agent, "receipt", text, "plain")

    def _caught(self, part: Part, event: dict[str, Any], at_s: float) -> Line | None:
        if part.agent in self.catches:
            return None
        kind, by = event.get("type"), str(event.get("detector", ""))
        if kind == "signal" and part.caught_by:
            if by not in part.caught_by:
                return None
            return self._check_off(part, at_s, by, clean(event.get("why")))
        if kind == "signal" and event.get("level") == "breach":
            self.spoiled[part.agent] = f"{by}: {clean(event.get('why'))}"
        if kind == "run.end" and not part.caught_by:
            if event.get("status") == part.ends and part.agent not in self.spoiled:
                return self._check_off(part, at_s, "", f"ended as {part.ends}, as it should")
            self.spoiled.setdefault(part.agent, f"ended as {event.get('status')}")
        return None

    def _check_off(self, part: Part, at_s: float, by: str, why: str) -> Line:
        self.catches[part.agent] = Catch(part.agent, at_s, by, why)
        done = f"{len(self.catches)} of {len(self.cast)}"
        text = f"caught ({part.does}); {done}" if by else f"{why}; {done}"
        return Line(at_s, part.agent, "caught", text, "good", by)

    def _again(self, agent: str, what: str) -> int:
        count = self._told[agent, what] = self._told.get((agent, what), 0) + 1
        return count


def clean(value: Any) -> str:
    """Text for a terminal: one line, printable, of a bounded length."""
    text = " ".join(str(value or "").split())
    printable = "".join(char for char in text if char.isprintable())
    if len(printable) <= TEXT_CHARS_MAX:
        return printable
    return printable[: TEXT_CHARS_MAX - 1] + "…"


def _ms(value: Any) -> str:
    return f"{value:.0f} ms" if isinstance(value, int | float) else "?"
