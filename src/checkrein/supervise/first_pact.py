"""By which pact a program begins, and what that says of lost contact, while no server is asked."""

from contextlib import suppress

from checkrein.bus.pacts import PactSet
from checkrein.supervise.options import Options
from checkrein.supervise.supervisor import Supervisor
from checkrein.world import World

_LOST_CONTACT = ("continue", "pause", "halt")


def begin_by_own(supervisor: Supervisor, options: Options) -> None:
    """By the pact of `--pact`, if there is one. Unless the user named the agent, it holds for any
    agent of the program that has no other."""
    if options.pact:
        supervisor.pacts[options.agent if options.named else ""] = options.pact
        supervisor.pacts[options.agent] = options.pact


def begin_by_kept(supervisor: Supervisor, options: Options, world: World) -> str:
    """Without a server and without a pact of its own, the agent begins by the last pact that the
    server gave it. Returns what to tell the user; empty: there is none, or none is needed."""
    agent = options.agent
    if options.pact or agent in supervisor.pact_sets:
        return ""
    found = supervisor.kept_pacts.find(agent, options.environment)
    if found is None:
        return ""
    pact_set, at_ns = found
    supervisor.pact_sets[agent] = pact_set
    age_s = max(0, world.now_ns() - at_ns) / 1e9
    return (
        f"{agent} begins under the last pact that the server gave it, version "
        f"{pact_set.enforced_version or 'default'}, {age_s:.0f} s old"
    )


def lost_contact_of(standing: PactSet | None, own: str) -> str:
    """The word of the pact in force; `own`, that of `--pact`, where none is in force or none can
    be read."""
    if standing is not None and standing.enforced:
        with suppress(Exception):
            from checkrein.policy.pact_chain import read_chain

            return read_chain([(t.name, t.text) for t in standing.enforced]).lost_contact
    return own if own in _LOST_CONTACT else "continue"
