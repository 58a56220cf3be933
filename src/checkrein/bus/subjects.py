"""Every subject, stream and bucket name, in one place.

Events bus
    ev.<agent>.<partition>          stream EVENTS     envelopes, published by the agent's shipper
    ev.<agent>.<partition>.role     stream EVENTS     the same from our own roles, about an agent
    dead.<agent>                    stream DEAD       what was refused, with place and reason
    stored.<agent>.<recorder>       plain             archive -> shipper: `Stored`
    stored.ask.<agent>.<recorder>   request           shipper -> archive: what is stored?
    history.<query>                 request           api -> archive: `Query`, answers in chunks

Control bus
    cmd.<session>                   plain             control -> holder: `Order`, signed
    rcpt.<session>                  plain             holder -> control: `Progress`, one or a list
    reg.<session>                   request           holder -> control: `Registration`
    beat.<session>                  plain, request    holder -> control each second: `Beat`
    ask.<session>                   request           holder -> control: `Ask`, `Raise`
    lease.<session>                 request           holder -> control: `leases.LeaseRequest`
    recall.<session>                plain             control -> holder: `leases.Recall`
    ctl.ledger                      request           api -> control: `leases.LedgerRequest`
    ctl.command                     request           api, watch -> control: `CommandRequest`
    ctl.approvals  ctl.decide       request           api -> control: approvals, the word on them
    ctl.escalations ctl.acknowledge request           api -> control: the same for escalations
    ctl.runs  ctl.commands          request           api -> control: what it knows
    live.changed                    plain             control -> api: a run or a command changed
    pact.<session>                  plain             api -> holder: a signed `PactSet`
    held.<session>                  request           holder -> api: `Held`, answered with `Newer`
    pacts.ask                       plain             api -> holders: say what you hold
    audit.<kind>                    stream AUDIT      commands, receipts, decisions: never deleted
    bucket `desired`                <session>.<run>   the level: the latest signed `Order` of a run
    bucket `runs`                   <run>             registry of live runs
    bucket `commands`               <command>         state of every command and its receipts
    bucket `control`                generation, clock what rises over restarts of control
    bucket `sessions`               <session>         who a session is: `SessionRecord`
    bucket `incidents`              <incident>        open and recent incidents
    bucket `ledger`                 <account>         shared budgets: what is leased and spent
    bucket `pacts`                  <agent>.<environment>  `PactRecord`: versions, stages, history
    bucket `pact_texts`             <digest>          the YAML of a version, never changed
    bucket `pact_levels`            <agent>.<environment>  `PactSet`: what is in force, whole
    bucket `profiles`               <agent>.<environment>  `LearnedProfile`: usual flows
    bucket `tokens`                 <name>            who may ask the api for what, hashed
    bucket `approvals`              <approval>        what people were asked, and their answers
    bucket `escalations`            <escalation>      what people must look at, and until when
    bucket `agents`                 <agent>           `identities.AgentRecord`: keys, owner
    bucket `run_tokens`             <digest>          `identities.RunToken`: a run's key
    bucket `revocations`            <user key>        `claims.Revocation`: credentials taken back
    bucket `contained`              <agent>           `identities.Contained`: shut out everywhere
    bucket `halted`                 <agent>.<name>    `identities.HaltedRun`: refused at gateways
    bucket `gateways`               <session>         `identities.GatewayRecord`: who serves, where
    bucket `mcp_tools`              <server>.<tool>   `tool_pins.ToolPin`: tools as first seen
"""

import re

from checkrein.bus.types import StreamSpec

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")

EVENTS = StreamSpec("EVENTS", ("ev.>",), bytes_max=4 * 1024**3, age_max_s=7 * 86400)
DEAD = StreamSpec("DEAD", ("dead.>",), bytes_max=256 * 1024**2, age_max_s=30 * 86400)
AUDIT = StreamSpec("AUDIT", ("audit.>",), evidence=True)


def token(name: str) -> str:
    """A name as one subject token: letters, digits, `_` and `-` stand for themselves, every other
    UTF-8 byte is `=XX`. The empty name is `=`."""
    if _PLAIN.fullmatch(name):
        return name
    if not name:
        return "="
    return "".join(
        chr(byte) if _PLAIN.fullmatch(chr(byte)) else f"={byte:02X}"
        for byte in name.encode("utf-8", "surrogatepass")
    )


def name_of(text: str) -> str:
    """The name that a token stands for."""
    if text == "=":
        return ""
    parts = text.split("=")
    raw = parts[0].encode()
    for part in parts[1:]:
        raw += bytes([int(part[:2], 16)]) + part[2:].encode()
    return raw.decode("utf-8", "surrogatepass")


ROLE = "role:"
"""How the recorders of our own roles begin."""


def events(agent: str, partition: int, recorder: str = "") -> str:
    """Where a recorder's events go. An agent may publish `ev.<agent>.*`, which does not hold the
    subjects of our own roles: they have one token more."""
    subject = f"ev.{token(agent)}.{partition:02d}"
    return subject + ".role" if recorder.startswith(ROLE) else subject


def may_say(subject: str, recorder: str) -> bool:
    """Whether a recorder is to be believed on a subject: a role's only where no agent may publish,
    so that no agent can write signals, receipts or losses about itself."""
    return recorder.startswith(ROLE) == subject.endswith(".role")


def agent_of(subject: str) -> str:
    """The agent that a subject of the events bus speaks for: the bus has checked it."""
    return name_of(subject.split(".")[1])


def dead(agent: str) -> str:
    return f"dead.{token(agent)}"


def stored(agent: str, recorder: str) -> str:
    return f"stored.{token(agent)}.{token(recorder)}"


def stored_ask(agent: str, recorder: str) -> str:
    return f"stored.ask.{token(agent)}.{token(recorder)}"


def history(query: str) -> str:
    return f"history.{query}"


def command(session: str) -> str:
    return f"cmd.{session}"


def receipts(session: str) -> str:
    return f"rcpt.{session}"


def registration(session: str) -> str:
    return f"reg.{session}"


def beat(session: str) -> str:
    return f"beat.{session}"


def ask(session: str) -> str:
    return f"ask.{session}"


def lease(session: str) -> str:
    return f"lease.{session}"


def recall(session: str) -> str:
    return f"recall.{session}"


def desired_key(session: str, run_id: str) -> str:
    return f"{session}.{run_id}"


def pact(session: str) -> str:
    return f"pact.{session}"


def held(session: str) -> str:
    return f"held.{session}"


def pact_key(agent: str, environment: str) -> str:
    return f"{token(agent)}.{token(environment)}"


def pact_key_of(key: str) -> tuple[str, str]:
    """The agent and the environment of a key of `pacts`, `pact_levels` or `profiles`."""
    agent, _, environment = key.partition(".")
    return name_of(agent), name_of(environment)


def tool_key(server: str, tool: str) -> str:
    return f"{token(server)}.{token(tool)}"


def inbox(session: str) -> str:
    """The prefix of the only inboxes this session may listen on."""
    return f"_INBOX_{session}"


CONTROL_COMMAND = "ctl.command"
CONTROL_RUNS = "ctl.runs"
CONTROL_COMMANDS = "ctl.commands"
CONTROL_APPROVALS = "ctl.approvals"
CONTROL_DECIDE = "ctl.decide"
CONTROL_ESCALATIONS = "ctl.escalations"
CONTROL_ACKNOWLEDGE = "ctl.acknowledge"
CONTROL_LEDGER = "ctl.ledger"
LIVE_CHANGED = "live.changed"
PACTS_ASK = "pacts.ask"

BUCKET_DESIRED = "desired"
BUCKET_RUNS = "runs"
BUCKET_COMMANDS = "commands"
BUCKET_CONTROL = "control"
BUCKET_INCIDENTS = "incidents"
BUCKET_PACTS = "pacts"
BUCKET_PACT_TEXTS = "pact_texts"
BUCKET_PACT_LEVELS = "pact_levels"
BUCKET_PROFILES = "profiles"
BUCKET_AGENTS = "agents"
BUCKET_TOKENS = "tokens"
BUCKET_RUN_TOKENS = "run_tokens"
BUCKET_REVOCATIONS = "revocations"
BUCKET_CONTAINED = "contained"
BUCKET_GATEWAYS = "gateways"
BUCKET_MCP_TOOLS = "mcp_tools"
BUCKET_HALTED = "halted"
BUCKET_WATCH = "watch"
BUCKET_SESSIONS = "sessions"
BUCKET_APPROVALS = "approvals"
BUCKET_ESCALATIONS = "escalations"
BUCKET_LEDGER = "ledger"
BUCKETS = (
    BUCKET_DESIRED,
    BUCKET_RUNS,
    BUCKET_COMMANDS,
    BUCKET_INCIDENTS,
    BUCKET_PACTS,
    BUCKET_PACT_TEXTS,
    BUCKET_PACT_LEVELS,
    BUCKET_CONTROL,
    BUCKET_AGENTS,
    BUCKET_TOKENS,
    BUCKET_WATCH,
    BUCKET_SESSIONS,
    BUCKET_APPROVALS,
    BUCKET_ESCALATIONS,
    BUCKET_LEDGER,
    BUCKET_PROFILES,
    BUCKET_RUN_TOKENS,
    BUCKET_REVOCATIONS,
    BUCKET_CONTAINED,
    BUCKET_GATEWAYS,
    BUCKET_MCP_TOOLS,
    BUCKET_HALTED,
)
