"""How long does it take to be told what one may do, by the resident decision service?

A real `up`, an agent under a pact of 20 rules; each call is asked about and told to have ended, as
a hook or a client in another language does it, over the gateway's Unix socket. Beside it, in the
same run: the bare round trip to the same process, which judges and records nothing.
"""

import time
from collections.abc import Callable

from benches.gateway_house import Line, gateway_house, ready, request_of
from benches.harness import Row
from benches.whole import percentile

QUESTION = "How long does one decision take, asked of the resident service?"
CALLS = 3_000
WARM = 300
RULES = "\n".join(f"  t{n}: {{kind: read, allow: args.n < {n + 1}}}" for n in range(19))
LOOK = "  look: {kind: read, allow: args.n >= 0}"
PACT = f"pact: bench\ntools:\n{LOOK}\n{RULES}\nloops: {{no_progress: 15}}\n"


def run() -> list[Row]:
    with gateway_house(PACT) as (system, key):
        socket = ready(system, key)
        tcp = ("127.0.0.1", system.gateway_port)
        before = {"tool": "look", "arguments": {"n": 1, "path": "/srv/a/b", "why": "because"}}
        rows = [
            _row("decide, Unix socket, one connection", _kept(socket, key, before), 500.0),
            _row("decide and tell the end, Unix socket", _pairs(socket, key, before)),
            _row("decide, a connection for each call", _fresh(socket, key, before)),
            _row("decide, TCP, one connection", _kept(tcp, key, before)),
        ]
        bare = _times(lambda line: line.ask(b"GET /healthz HTTP/1.1\r\nhost: g\r\n\r\n"), socket)
        limit = percentile(bare, 0.5)
        for row in rows:
            row.limit = limit
        return rows


def _kept(where: str | tuple[str, int], key: str, body: dict[str, object]) -> list[float]:
    numbers = iter(range(10**9))

    def ask(line: Line) -> None:
        number = next(numbers)
        call = body | {"call_id": f"k{number}", "arguments": {**_args(body), "n": number}}
        request = request_of("/decide", key, call)
        began = time.perf_counter_ns()
        status, data = line.ask(request)
        taken.append((time.perf_counter_ns() - began) / 1000)
        if status != 200 or b'"verdict":"allow"' not in data:
            raise RuntimeError(f"{status}: {data!r}")
        line.ask(
            request_of(
                "/decide", key, {"call_id": f"k{number}", "phase": "after", "result": number}
            )
        )

    taken: list[float] = []
    _times(ask, where)
    return taken[WARM:]


def _args(body: dict[str, object]) -> dict[str, object]:
    found = body["arguments"]
    return found if isinstance(found, dict) else {}


def _pairs(where: str, key: str, body: dict[str, object]) -> list[float]:
    numbers = iter(range(10**9))

    def ask(line: Line) -> None:
        number = next(numbers)
        call = body | {"call_id": f"p{number}", "arguments": {**_args(body), "n": number}}
        end = {"call_id": f"p{number}", "phase": "after", "result": number}
        line.ask(request_of("/decide", key, call))
        line.ask(request_of("/decide", key, end))

    return _times(ask, where)


def _fresh(where: str, key: str, body: dict[str, object]) -> list[float]:
    taken = []
    for number in range(CALLS // 3):
        call = body | {"call_id": f"f{number}", "arguments": {**_args(body), "n": number}}
        request = request_of("/decide", key, call, "connection: close")
        began = time.perf_counter_ns()
        line = Line(where)
        line.ask(request)
        taken.append((time.perf_counter_ns() - began) / 1000)
        line.close()
    return taken


def _times(ask: Callable[[Line], object], where: str | tuple[str, int]) -> list[float]:
    """Microseconds of each, after a warm-up."""
    line = Line(where)
    taken = []
    for _ in range(WARM + CALLS):
        began = time.perf_counter_ns()
        ask(line)
        taken.append((time.perf_counter_ns() - began) / 1000)
    line.close()
    return taken[WARM:]


def _row(name: str, taken: list[float], target: float | None = None) -> Row:
    note = f"p99 {percentile(taken, 0.99):.0f} µs of {len(taken)}"
    return Row(name=name, measured=percentile(taken, 0.5), unit="µs", target=target, note=note)


if __name__ == "__main__":
    for row in run():
        print(f"{row.name}: p50 {row.measured:.0f} µs, {row.note}, bare {row.limit or 0:.0f} µs")
