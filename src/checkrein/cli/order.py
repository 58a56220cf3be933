"""`checkrein pause|resume|halt TARGET`: a command, and its receipts as they come."""

import re
import sys
import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import Client, NotReachable, Refused
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, STRONG, Cell
from checkrein.world import REAL

FIRST_WAIT_MS = 150
ROUND_WAIT_MS = 500
UNCONFIRMED_AFTER_S = 2.0
WAIT_S_DEFAULT = 10.0
LINES_MAX = 60
AGENT_VERBS = ("contain", "release")
_KINDS = ("agent:", "run:", "room:", "task:")
_RUN_ID = re.compile(r"[0-9a-f]{4,8}(-[0-9a-f-]*)?")


def _command(verb: str, text: str) -> click.Command:
    @click.command(verb, help=text)
    @click.argument("target")
    @click.option("--reason", required=True, help="Why; shown to the agent's owner and kept.")
    @click.option(
        "--wait", "wait_s", default=WAIT_S_DEFAULT, type=click.FloatRange(0, 3600),
        show_default=True, help="Seconds to wait for every run to obey.",
    )  # fmt: skip
    @out.server_options
    def command(
        target: str, reason: str, wait_s: float, url: str, token: str, as_json: bool
    ) -> None:
        with out.asking(url, token) as client:
            state = order(client, verb, full_target(target), reason, wait_s, quiet=as_json)
        if as_json:
            out.say_json(state)
        sys.exit(0 if obeyed(state) else 1)

    return command


_TARGETS = (
    "\n\nTARGET is agent:NAME, run:ID (the beginning of an id will do), room:NAME, task:ID or "
)
_EXIT = "all. Prints a receipt for each run; exits 0 only if every run obeyed."
_EXIT_AGENTS = (
    "all: the agents of these runs are meant. Prints a receipt for each agent; exits 0 only if "
    "every gateway has said so."
)
pause = _command("pause", "Let nothing new begin; calls in flight finish." + _TARGETS + _EXIT)
resume = _command("resume", "Let paused runs go on where they were." + _TARGETS + _EXIT)
halt = _command(
    "halt",
    "Stop it: nothing more begins, what is in flight is cancelled, the process tree is frozen and "
    "killed, and whoever saw that from outside says so." + _TARGETS + _EXIT,
)

contain = _command(
    "contain",
    "Shut agents out at every gateway: their keys work nowhere and what is in flight is cut, until "
    "a person releases them; also for runs to come. Stops no process: see `halt`."
    + _TARGETS
    + _EXIT_AGENTS,
)
release = _command("release", "Let contained agents in again." + _TARGETS + _EXIT_AGENTS)


def full_target(target: str) -> str:
    """`run:` may be left out of a run's id."""
    if target == "all" or target.startswith(_KINDS) or not _RUN_ID.fullmatch(target):
        return target
    return f"run:{target}"


def obeyed(state: dict[str, Any]) -> bool:
    """Every run did as told, and there was one. A halt, and who is shut out, counts only when
    somebody saw it."""
    runs = state["runs"]
    sure = state["verb"] not in ("halt", "contain") or all(run["confirmed"] for run in runs)
    return bool(runs) and sure and all(_did(run) for run in runs)


def _did(run: dict[str, Any]) -> bool:
    outcome = run.get("outcome")
    return outcome == "obeyed" if outcome else run["obeyed_ms"] is not None


def order(
    client: Client, verb: str, target: str, reason: str, wait_s: float, quiet: bool = False
) -> dict[str, Any]:
    """Gives the command and follows it until it is done or `wait_s` is over. Raises ClientError."""
    teller = _Teller(quiet)
    begun = time.monotonic()
    body = {
        "verb": verb, "target": target, "reason": reason, "command_id": REAL.uuid7(),
        "wait_ms": min(FIRST_WAIT_MS, round(wait_s * 1000)),
    }  # fmt: skip
    state: dict[str, Any] = client.post("/api/v1/commands", body)
    teller.tell(state)
    while not state["done"] and not obeyed(state):
        left = wait_s - (time.monotonic() - begun)
        if left <= 0:
            break
        if time.monotonic() - begun > UNCONFIRMED_AFTER_S:
            teller.say_unconfirmed(state)
        state = _later(client, state, min(ROUND_WAIT_MS, round(left * 1000))) or state
        teller.tell(state)
    teller.finish(state)
    return state


def _later(client: Client, state: dict[str, Any], wait_ms: int) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get(
            f"/api/v1/commands/{state['command_id']}", wait_ms=max(1, wait_ms)
        )
        return found
    except (NotReachable, Refused) as error:
        if isinstance(error, Refused) and error.status not in (404, 503):
            raise
        time.sleep(wait_ms / 1000)
        return None


class _Teller:
    """Says each thing once, in the order in which it happens."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._told: dict[str, tuple[Any, ...]] = {}
        self._asked = False
        self._unconfirmed = False
        self._lines = 0
        self._verb = ""

    def tell(self, state: dict[str, Any]) -> None:
        if self._quiet:
            return
        self._verb = state["verb"]
        if not self._asked:
            self._asked = True
            number = len(state["runs"])
            what = "agent" if self._verb in AGENT_VERBS else "run"
            runs = f"{number} {what}{'s' * (number != 1)}"
            self._line([
                Cell(f"{state['verb']} {clean(state['target'], 80)}", STRONG),
                Cell(f"  asked of {runs}", CALM),
            ])  # fmt: skip
            if state.get("error"):
                self._line([Cell(f"  {clean(state['error'], 300)}", ALARM)])
        ids = words.short_ids(run["run_id"] for run in state["runs"])
        for run in state["runs"]:
            self._tell_run(run, ids[run["run_id"]])

    def _tell_run(self, run: dict[str, Any], short: str) -> None:
        now = (run["obeyed_ms"], run["confirmed"], len(run["how"]), run.get("note", ""))
        if run["delivered_ms"] is None and not any(now):
            return
        which = run["run_id"] or run["agent"]
        if self._told.get(which) == now:
            return
        self._told[which] = now
        if self._lines < LINES_MAX:
            self._line(_receipt(run, short, self._verb))
        elif self._lines == LINES_MAX:
            self._line([Cell("  … more runs; the last line counts them all", CALM)])

    def say_unconfirmed(self, state: dict[str, Any]) -> None:
        """Once, while the truth is that nobody knows."""
        if self._quiet or self._unconfirmed:
            return
        self._unconfirmed = True
        for run in [run for run in state["runs"] if not run["confirmed"]][:10]:
            why = clean(run.get("note", ""), 200) or (
                "it has not answered" if run["delivered_ms"] is None else "nobody has seen it"
            )
            agent, ident = clean(run["agent"], 40), clean(run["run_id"], 36)
            out.styled([Cell(f"  not confirmed: {agent} {ident}: {why}", CAUTION)])

    def finish(self, state: dict[str, Any]) -> None:
        if self._quiet:
            return
        runs = state["runs"]
        if not runs:
            out.styled([Cell((state.get("error") and "nothing done") or
                             f"no run is {clean(state['target'], 80)} now", CAUTION)])  # fmt: skip
            return
        done = sum(run["obeyed_ms"] is not None for run in runs)
        seen = sum(bool(run["confirmed"]) for run in runs)
        slowest = max((run["obeyed_ms"] or 0.0 for run in runs), default=0.0)
        proven = f", {seen} confirmed" if seen or state["verb"] == "halt" else ""
        text = f"{done} of {len(runs)} obeyed{proven}, slowest {slowest:.1f} ms"
        out.styled([Cell(text, PLAIN if obeyed(state) else CAUTION)])

    def _line(self, cells: list[Cell]) -> None:
        self._lines += 1
        out.styled(cells)


def _receipt(run: dict[str, Any], short: str, verb: str) -> list[Cell]:
    rungs = "  ".join(f"{clean(rung['rung'], 12)} {rung['ms']:.1f} ms" for rung in run["how"])
    delivered = f"delivered {run['delivered_ms']:.1f} ms" if run["delivered_ms"] is not None else ""
    done = f"obeyed {run['obeyed_ms']:.1f} ms" if run["obeyed_ms"] is not None else ""
    if run["confirmed"]:
        sure = Cell(f"confirmed by {clean(run['confirmed'], 40)}")
    elif verb not in ("halt", *AGENT_VERBS) and done:
        sure = Cell("as the agent says", CALM)  # nobody outside it can see a boundary that waits
    else:
        sure = Cell("not confirmed yet", CAUTION)
    note = f"  {clean(run.get('note', ''), 200)}" if run.get("note") else ""
    parts = [part for part in (delivered, rungs, done) if part]
    return [
        Cell(f"  {clean(run['agent'], 24):<24} "),
        Cell(f"{clean(short, 36)}  ", CALM),
        Cell("  ".join(parts) + "  "),
        sure,
        Cell(note, CAUTION),
    ]
