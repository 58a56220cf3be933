"""`init`, `instrument`, `run`: how an agent's author begins."""

from collections.abc import Mapping

from checkrein.sdk import config as configs
from checkrein.sdk import context, process, quiet, values
from checkrein.sdk.run import Run


def init(
    agent: str = "",
    room: str = "",
    *,
    environment: str = "",
    url: str = "",
    token: str = "",
    pact: str = "",
    version: str = "",
) -> None:
    """Says who this agent is. Everything left out comes from the environment (`CHECKREIN_AGENT`,
    `_ROOM`, `_ENVIRONMENT`, `_URL`, `_TOKEN`, `_PACT`), then from a local `checkrein up`.

    `pact` is the path of the pact to enforce where the server has none. Returns at once: the server
    is looked for in a thread of its own. Call it once, before the first run; a later call with
    other settings is warned about and changes nothing. Never raises an Exception.
    """
    with quiet.quiet("init"):
        config = configs.read(
            configs.environ(), agent=agent, room=room, environment=environment, url=url,
            token=token, pact_path=pact, agent_version=version,
        )  # fmt: skip
        there = process.peek()
        if there is None:
            from checkrein.sdk.begin import client_of

            process.install(client_of(config))
        elif there.given != config:
            quiet.warn_once("init", "checkrein: init was called before; this call changes nothing")
        context.follow_threads()


def instrument() -> tuple[str, ...]:
    """Watches the agent libraries that are installed, and makes threads carry their run. Returns
    what is instrumented by now. Never raises an Exception."""
    with quiet.quiet("instrument"):
        context.follow_threads()
        process.client()
        from checkrein.sdk.instruments import instrument as watch

        return watch()
    return ()


def run(
    goal: str = "",
    *,
    task_type: str = "",
    agent: str = "",
    room: str = "",
    labels: Mapping[str, str] | None = None,
    traceparent: str = "",
) -> Run:
    """One execution towards one goal, to be used as a context manager (`with`, `async with`).

    Begun inside another run it is its child and belongs to its task; `traceparent` (a W3C header
    from whoever asked) makes it belong to that task. Raises Halted inside a halted run.
    """
    context.follow_threads()
    return process.client().new_run(
        goal=values.clean_text(goal), task_type=values.clean_text(task_type, 500),
        agent=values.clean_text(agent, 500), room=values.clean_text(room, 500),
        labels={values.clean_text(k, 200): values.clean_text(v, 1_000)
                for k, v in (labels or {}).items()},
        traceparent=values.clean_text(traceparent, 200),
    )  # fmt: skip


def current_run() -> Run:
    """The run of this code: the innermost one around it, or the process's ambient run."""
    return context.current()
