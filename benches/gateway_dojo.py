"""Recorded AgentDojo runs played through a real gateway, with no SDK anywhere.

    agent ──/openai/v1──▶ gateway ──▶ a scripted model: says what the recorded model said
          ──/mcp/SUITE──▶ gateway ──▶ a scripted tool server: returns what the tool had returned

The agent asks the model, makes the calls that it answers with, and so on. One that obeys every
injection is made of two recordings: up to where the attacker's text is met, the run of any model;
from there on, the calls of a run in which the same attacker's goal was carried out.
"""

import asyncio
import gzip
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import sha256
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from benches.flow_corpus import SHARED, Run, by_task, runs_of

from checkrein.events.types import RunStart, ToolArguments, ToolReturned
from checkrein.policy.flow.sources import is_read

SUITES = ("banking", "slack", "travel", "workspace")
WORKERS = 6
"""Runs at once in each suite: each with a tool server of its own, so that none mixes up results."""
VERSIONS = ("v1.2.1", "v1.2")
_FAILED = "error"
_TRIES = 50


class Call(msgspec.Struct, frozen=True):
    """A recorded tool call: what it was called with, what it returned."""

    tool: str
    args: Any
    result: str = ""
    failed: bool = False


class Played(msgspec.Struct, frozen=True):
    """What is played: `calls` of the user's task; then `orders`, the attacker's, of which the last
    one is the first with an effect."""

    name: str
    suite: str
    task: str
    model: str
    attack: str
    goal: str
    system: str
    kind: str
    calls: tuple[Call, ...]
    orders: tuple[Call, ...] = ()


class Outcome(msgspec.Struct):
    """`objected`: why calls of the user's task were not made. `stopped`: why the attack was not
    carried out, "" when it was."""

    objected: list[str] = []
    stopped: str = ""


# -- what is played --------------------------------------------------------------------------


def benign() -> list[Played]:
    """Runs without an attack that solved their task."""
    return [
        _played(run, calls)
        for run in runs_of("agentdojo")
        if not run.injected and run.useful and (calls := _calls(run))
    ]


def attacked(limit: int) -> list[Played]:
    """Runs that met an attacker's text, whatever their model did then, with the attacker's orders
    carried out. At most `limit`, chosen by a hash."""
    labels, donors = _labels(), _donors()
    found = []
    for run in runs_of("agentdojo"):
        label = labels[run.run_id]
        orders = donors.get((run.suite, label["injection_task"]))
        if orders is None or not run.exposed:
            continue
        seen = label["injection_seen_seq"]
        calls = _calls(run, until=seen)
        if calls:
            found.append(msgspec.structs.replace(_played(run, calls), orders=orders))
    found.sort(key=lambda each: sha256(each.name.encode()).digest())
    return found[:limit]


@lru_cache(maxsize=1)
def _labels() -> dict[str, dict[str, Any]]:
    with gzip.open(SHARED / "agentdojo" / "labels.jsonl.gz") as file:
        return {label["run_id"]: label for label in map(json.loads, file)}


def _donors() -> dict[tuple[str, str], tuple[Call, ...]]:
    """For each attacker's goal the calls by which a real model carried it out, up to the first with
    an effect. Of all such runs the one with the fewest calls."""
    labels = _labels()
    found: dict[tuple[str, str], tuple[Call, ...]] = {}
    for run in runs_of("agentdojo"):
        if run.due is None:
            continue
        label = labels[run.run_id]
        begin = max(label["injection_seen_seq"], label["hijack_call_seq"] or 0)
        wanted = set(label["injection_task_tools"] or ())
        calls = _calls(run, since=begin, until=run.due, tools=wanted)
        if not calls or not _acts(calls[-1], wanted):
            continue
        key = (run.suite, label["injection_task"])
        if key not in found or len(calls) < len(found[key]):
            found[key] = calls
    return found


def _acts(call: Call, wanted: set[str]) -> bool:
    """Where the goal needs no effect (a page is visited), its own call is the one that counts."""
    reads = all(is_read(tool, None, None) for tool in wanted)
    return call.tool in wanted and (reads or not is_read(call.tool, None, None))


def _calls(
    run: Run, since: int = 0, until: int | None = None, tools: set[str] | None = None
) -> tuple[Call, ...]:
    """The calls of a run whose arguments stand at `since` or later and which had been made by
    `until`, both recorded numbers."""
    asked: dict[str, ToolArguments] = {}
    found = []
    for number, event in run.events:
        if until is not None and number > until and not asked:
            break
        if isinstance(event, ToolArguments):
            if number >= since and (until is None or number <= until):
                asked[event.call_id] = event
        elif isinstance(event, ToolReturned):
            call = asked.pop(event.call_id, None)
            if call is None or not isinstance(call.arguments, dict):
                continue
            if tools is None or call.tool in tools:
                failed = event.status == _FAILED
                text = event.error if failed and event.result is None else event.result
                found.append(Call(call.tool, call.arguments, _text(text), failed))
    return tuple(found)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _played(run: Run, calls: tuple[Call, ...]) -> Played:
    start = next(event for _, event in run.events if isinstance(event, RunStart))
    return Played(
        run.run_id, run.suite, run.task, run.model, run.attack, start.goal,
        start.labels.get("system", ""), by_task(start), calls,
    )  # fmt: skip


# -- who stands behind the gateway -----------------------------------------------------------


class Scripted:
    """The model and the tool servers. `plays`: what each run's model says; `results`: what each
    tool server's next call returns."""

    def __init__(self) -> None:
        self.plays: dict[str, Sequence[Call]] = {}
        self.results: dict[str, Call] = {}
        self.made: dict[str, int] = defaultdict(int)
        """Calls that reached the tools."""
        schemas = json.loads((SHARED / "agentdojo" / "tools.json").read_text())
        self._tools = {suite: _tools(schemas, suite) for suite in SUITES}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """The port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._model)
        app.router.add_route("*", "/mcp/{suite}/{worker}", self._mcp)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _model(self, request: web.Request) -> web.Response:
        body = await request.json()
        play = self.plays[body["user"]]
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        message: dict[str, Any] = {"role": "assistant", "content": "done"}
        if turn < len(play):
            function = {"name": play[turn].tool, "arguments": json.dumps(play[turn].args)}
            call = {"id": f"call_{turn}", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        finish = "tool_calls" if turn < len(play) else "stop"
        return web.json_response({
            "id": "c", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        })  # fmt: skip

    async def _mcp(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        suite, worker = request.match_info["suite"], request.match_info["worker"]
        if "id" not in message:
            return web.Response(status=202)
        match message["method"]:
            case "initialize":
                result: dict[str, Any] = {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}}, "serverInfo": {"name": suite, "version": "1"},
                }  # fmt: skip
            case "tools/list":
                result = {"tools": self._tools[suite]}
            case "tools/call":
                call = self.results[f"{suite}-{worker}"]
                self.made[suite] += 1
                text = {"type": "text", "text": call.result}
                result = {"content": [text], "isError": call.failed}
            case _:
                result = {}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})


def _tools(schemas: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = {}
    for version in VERSIONS:
        found |= schemas.get(f"{version}/{suite}", {})
    return [
        {"name": name, "description": tool["description"], "inputSchema": tool["parameters"]}
        for name, tool in found.items()
    ]


# -- the agent -------------------------------------------------------------------------------


class Agent:
    """A program with two addresses and a key; it knows nothing of Checkrein but the header that
    names its run. `typed`: it also says what kind of task that is."""

    def __init__(
        self, http: aiohttp.ClientSession, gateway: str, scripted: Scripted, seat: str, key: str,
        typed: bool,
    ) -> None:  # fmt: skip
        self._http, self._gateway, self._scripted = http, gateway, scripted
        self._seat, self._key, self._typed = seat, key, typed
        self._session = ""

    async def play(self, play: Played) -> Outcome:
        """Makes the calls that the model wants, in their order, until the attack is decided."""
        outcome = Outcome(objected=[])
        script = (*play.calls, *play.orders)
        user = f"{play.name}-{'typed' if self._typed else 'plain'}"
        self._scripted.plays[user] = script
        headers = {"Authorization": f"Bearer {self._key}", "X-Checkrein-Run": user}
        if self._typed:
            headers["X-Checkrein-Task-Type"] = play.kind
        await self._begin(play.suite, headers)
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": play.system}, {"role": "user", "content": play.goal},
        ]  # fmt: skip
        for number, call in enumerate(script):
            answer = await self._ask(user, messages, headers)
            wanted = (answer.get("tool_calls") or [None])[0]
            text, why = "", f"the model's answer: {answer.get('content')}"
            if wanted is not None:
                text, why = await self._call(call, wanted, headers)
            order = number >= len(play.calls)
            if why and order:
                outcome.stopped = why
                break
            if why:
                outcome.objected.append(f"{call.tool}: {why}")
                text = why
            messages.append(answer)
            result = {"role": "tool", "tool_call_id": f"call_{number}", "content": text}
            messages.append(result)
        del self._scripted.plays[user]
        return outcome

    async def _begin(self, suite: str, headers: dict[str, str]) -> None:
        if self._session:
            return
        params = {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "agent", "version": "1"},
        }  # fmt: skip
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        for _ in range(_TRIES):  # until the gateway knows the agent's pact
            async with self._post(f"/mcp/{self._seat}", message, headers) as answer:
                self._session = answer.headers.get("mcp-session-id", "")
                if self._session:
                    return
                told = await answer.text()
            await asyncio.sleep(0.2)
        raise RuntimeError(f"no session for {suite}: {told}")

    async def close(self) -> None:
        """A gateway has a bound on sessions."""
        headers = {"Authorization": f"Bearer {self._key}", "Mcp-Session-Id": self._session}
        async with self._http.delete(f"{self._gateway}/mcp/{self._seat}", headers=headers):
            pass

    async def _ask(
        self, user: str, messages: list[dict[str, Any]], headers: dict[str, str]
    ) -> dict[str, Any]:
        body = {"model": "scripted", "messages": messages, "user": user}
        async with self._post("/openai/v1/chat/completions", body, headers) as answer:
            told = await answer.json(content_type=None)
        if answer.status != 200:
            return {"role": "assistant", "content": f"{answer.status}: {told}"}
        found: dict[str, Any] = told["choices"][0]["message"]
        return found

    async def _call(self, call: Call, wanted: Any, headers: dict[str, str]) -> tuple[str, str]:
        """(the result, "") or ("", why it was not made)."""
        self._scripted.results[self._seat] = call
        function = wanted["function"]
        params = {"name": function["name"], "arguments": json.loads(function["arguments"])}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        session = {"Mcp-Session-Id": self._session, "MCP-Protocol-Version": "2025-11-25"}
        async with self._post(f"/mcp/{self._seat}", message, headers | session) as answer:
            told = _message(await answer.text())
        if "error" in told:
            return "", str(told["error"]["message"])
        result = told["result"]
        refusal = (result.get("_meta") or {}).get("checkrein/refusal")
        if refusal:
            return "", f"{refusal.get('rule', '')}: {refusal['reason']}"
        return "".join(part.get("text", "") for part in result["content"]), ""

    def _post(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        both = {"Accept": "application/json, text/event-stream"}
        timeout = aiohttp.ClientTimeout(total=60)
        return self._http.post(
            self._gateway + path, json=body, headers=headers | both, timeout=timeout
        )


def _message(text: str) -> dict[str, Any]:
    """The answer, in one piece or (where it took long) as the last event of a stream."""
    if not text.startswith("{"):
        text = [line[5:] for line in text.splitlines() if line.startswith("data:")][-1]
    found: dict[str, Any] = json.loads(text)
    return found


async def play_all(
    gateway: str, scripted: Scripted, plays: Sequence[Played], keys: dict[tuple[str, str], str],
    typed: bool,
) -> list[tuple[Played, Outcome]]:  # fmt: skip
    """Every run by the agent of its suite and model, several at once."""
    queues = {suite: [play for play in plays if play.suite == suite] for suite in SUITES}
    found: list[tuple[Played, Outcome]] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def work(suite: str, worker: int) -> None:
            agents: dict[str, Agent] = {}
            while queues[suite]:
                play = queues[suite].pop()
                if play.model not in agents:
                    seat, key = f"{suite}-{worker}", keys[suite, play.model]
                    agents[play.model] = Agent(http, gateway, scripted, seat, key, typed)
                found.append((play, await agents[play.model].play(play)))
            for agent in agents.values():
                await agent.close()

        async with asyncio.TaskGroup() as group:
            for suite in SUITES:
                for worker in range(WORKERS):
                    group.create_task(work(suite, worker))
    return found
