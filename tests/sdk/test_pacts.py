"""Pacts of a process: adopted whole, in order, by runs under way; refused whole; kept for later."""

import asyncio
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

import checkrein
from checkrein.bus import messages, subjects
from checkrein.bus.pacts import Held, Newer, PactSet, PactText
from checkrein.bus.profiles import packed
from checkrein.bus.signed_pacts import sign
from checkrein.bus.types import Message
from checkrein.policy.flow.profile import Lesson, Profile, learn
from checkrein.policy.pact import load
from checkrein.policy.types import Action
from checkrein.sdk import quiet
from checkrein.sdk.errors import Denied
from checkrein.sdk.kept_pacts import KeptPacts
from tests.sdk.fakes import House, house
from tests.sdk.test_bus_link import SESSION, Linked, wait_for

OPEN = "pact: open\ntools: {look: {kind: read}, wire: {kind: read}}\n"
CLOSED = "pact: closed\ntools: {look: {kind: read}}\n"


def pact_set(
    revision: int, enforced: str = "", shadow: str = "", agent: str = "bot", **more: Any
) -> PactSet:
    return PactSet(
        agent=agent, environment="development", revision=revision,
        enforced=[PactText(agent, enforced)] if enforced else [],
        shadow=[PactText(agent, shadow)] if shadow else [],
        enforced_version=load(enforced).version if enforced and "[" not in enforced else "", **more,
    )  # fmt: skip


@checkrein.tool
def wire(amount: int) -> int:
    return amount


def decisions(it: House) -> list[tuple[str, str]]:
    return [(e["rule"], e["pact_version"]) for e in it.recorder.of("scope.decision")]


def test_a_run_under_way_decides_by_the_new_pact() -> None:
    with house() as it, checkrein.run() as run:
        assert wire(1) == 1
        assert it.client.adopt(pact_set(1, CLOSED, issued_by="ann")) == ""
        with pytest.raises(Denied, match="not in the pact `closed`"):
            wire(2)
        assert it.client.adopt(pact_set(2, OPEN)) == ""
        assert wire(3) == 3
    adopted = [e for e in it.recorder.of("scope.decision") if e["rule"] == "pact.adopted"]
    assert [e["pact_version"] for e in adopted] == [load(CLOSED).version, load(OPEN).version]
    assert "put in force by ann" in adopted[0]["reason"]
    assert (run.seat.pact.pact, run.seat.revision) == ("open", 2)


def test_an_older_set_changes_nothing() -> None:
    with house() as it, checkrein.run():
        it.client.adopt(pact_set(5, CLOSED))
        assert it.client.adopt(pact_set(4, OPEN)) == ""
        assert it.client.adopt(pact_set(5, OPEN)) == ""
        with pytest.raises(Denied):
            wire(1)


def test_another_agents_pact_is_not_ours() -> None:
    with house() as it, checkrein.run():
        it.client.adopt(pact_set(1, CLOSED, agent="other"))
        assert wire(1) == 1


def test_what_cannot_be_read_is_refused_whole_and_said_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = "pact: newer\nsome_key_of_a_later_version: [1]\n"
    with house() as it, checkrein.run():
        it.client.adopt(pact_set(1, OPEN))
        with caplog.at_level(logging.ERROR, "checkrein"):
            error = it.client.adopt(pact_set(2, broken, CLOSED))
        assert wire(1) == 1
        (holding,) = it.client.holdings()
        again = it.client.adopt(pact_set(3, CLOSED))
        assert it.client.holdings()[0].error == ""
    assert "some_key_of_a_later_version" in error
    assert "stays in force" in caplog.text
    assert (holding.revision, holding.enforced) == (1, load(OPEN).version)
    assert holding.error == error
    assert again == ""
    (said,) = [e for e in it.recorder.of("scope.decision") if e["rule"] == "pact.not_adopted"]
    assert (said["verdict"], said["pact"]) == ("allow", "open")


def test_what_the_shadow_refuses_is_recorded_and_let_pass() -> None:
    with house() as it, checkrein.run():
        it.client.adopt(pact_set(1, OPEN, CLOSED))
        assert wire(1) == 1
    (told,) = [e for e in it.recorder.of("scope.decision") if e.get("shadow")]
    assert (told["verdict"], told["rule"], told["pact_version"]) == (
        "deny", "tools.pact", load(CLOSED).version,
    )  # fmt: skip
    assert [e.get("status", "ok") for e in it.recorder.of("tool.returned")] == ["ok"]


def test_a_new_run_begins_under_what_holds() -> None:
    with house() as it:
        it.client.adopt(pact_set(1, CLOSED))
        with checkrein.run(), pytest.raises(Denied):
            wire(1)
    (start,) = it.recorder.of("run.start")
    assert (start["pact"], start["pact_version"]) == ("closed", load(CLOSED).version)


def test_only_a_shadow_goes_beside_the_local_pact(tmp_path: Path) -> None:
    path = tmp_path / "pact.yaml"
    path.write_text(OPEN)
    with house(pact_path=str(path)) as it, checkrein.run() as run:
        it.client.adopt(pact_set(1, "", CLOSED))
        assert wire(1) == 1
        assert run.seat.pact.pact == "open"
    assert [e["shadow"] for e in it.recorder.of("scope.decision")] == [True]


def test_a_local_pact_that_cannot_be_read_refuses_all_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "pact.yaml"
    path.write_text("pact: [\n")
    with house(pact_path=str(path)) as it:
        with checkrein.run(), pytest.raises(Denied, match=r"pact\.yaml"):
            wire(1)
        it.client.adopt(pact_set(1, OPEN))
        with checkrein.run():
            assert wire(2) == 2
        quiet.faults.clear()


def test_a_run_that_could_not_decide_goes_on_when_a_good_pact_comes(tmp_path: Path) -> None:
    with house(pact_path=str(tmp_path / "missing.yaml")) as it:
        with checkrein.run():
            with pytest.raises(Denied, match=r"missing\.yaml"):
                wire(1)
            it.client.adopt(pact_set(1, OPEN, CLOSED))
            assert wire(2) == 2
        quiet.faults.clear()
    assert any(e.get("shadow") for e in it.recorder.of("scope.decision"))


def test_the_servers_last_pact_is_kept_for_when_it_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorders = str(tmp_path / "recorders")
    with house(recorders=recorders) as it:
        it.client.adopt(pact_set(7, CLOSED))
    assert os.listdir(tmp_path) == ["pacts"]
    with (
        caplog.at_level(logging.WARNING, "checkrein"), house(recorders=recorders) as it,
        checkrein.run(),
    ):  # fmt: skip
        with pytest.raises(Denied, match="not in the pact `closed`"):
            wire(1)
        assert it.client.holdings()[0].revision == 7
    assert "seconds old" in caplog.text


def test_the_local_file_comes_before_the_kept_one(tmp_path: Path) -> None:
    recorders = str(tmp_path / "recorders")
    path = tmp_path / "pact.yaml"
    path.write_text(OPEN)
    with house(recorders=recorders) as it:
        it.client.adopt(pact_set(7, CLOSED))
    with house(recorders=recorders, pact_path=str(path)), checkrein.run():
        assert wire(1) == 1


def test_what_is_kept_is_of_its_agent_and_environment(tmp_path: Path) -> None:
    kept = KeptPacts(tmp_path)
    kept.keep(pact_set(1, OPEN), 5)
    assert kept.find("bot", "") == (pact_set(1, OPEN), 5)
    assert kept.find("bot", "production") is None
    assert kept.find("other", "") is None
    next(tmp_path.iterdir()).write_bytes(b"torn")
    assert kept.find("bot", "") is None
    assert KeptPacts(None).find("bot", "") is None
    quiet.faults.clear()


def test_no_decision_is_by_a_mixture_while_pacts_change() -> None:
    """Two that differ in the verdict: each verdict is that of the version it names, in order."""
    tools = ("wire", "look")
    pacts = [f"pact: p{n}\ntools: {{{tools[n % 2]}: {{kind: read}}}}\n" for n in range(1, 41)]
    order = {load(text).version: n for n, text in enumerate(pacts, 1)}
    seen: list[tuple[str, int]] = []
    with house() as it, checkrein.run() as run:
        it.client.adopt(pact_set(1, pacts[0]))
        stop = threading.Event()

        def decide() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                action = Action(kind="tool", name="wire", arguments={"n": n}, call_id=f"c{n}")
                verdict = run.seat.judge(action, n)
                run.seat.returned(action, f"r{n}", "", n)
                seen.append((verdict.kind, order[verdict.pact_version]))

        thread = threading.Thread(target=decide)
        thread.start()
        for n, text in enumerate(pacts, 1):
            it.client.adopt(pact_set(n, text))
            before = len(seen)
            wait_for(lambda before=before: len(seen) > before + 2)
        stop.set()
        thread.join(10)
    numbers = [n for _, n in seen]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 41))
    assert all((kind == "deny") == bool(n % 2) for kind, n in seen)


# -- over the bus ---------------------------------------------------------------------------------


def serve_held(it: Linked, answers: list[bytes]) -> list[Held]:
    """Answers what the link says it holds; what it said."""
    heard: list[Held] = []

    async def hear(message: Message) -> None:
        heard.append(messages.decode(message.data, Held))
        assert it.control.bus is not None
        await it.control.bus.respond(message, messages.encode(Newer(sets=list(answers))))

    bus, loop = it.control.bus, it.control.loop
    assert bus is not None
    assert loop is not None
    asyncio.run_coroutine_threadsafe(bus.subscribe(subjects.held(SESSION), hear), loop).result(10)
    return heard


def send(it: Linked, subject: str, data: bytes) -> None:
    bus, loop = it.control.bus, it.control.loop
    assert bus is not None
    assert loop is not None
    asyncio.run_coroutine_threadsafe(bus.publish(subject, data), loop).result(10)


def test_an_edge_is_adopted_and_acknowledged() -> None:
    with Linked() as it, checkrein.run():
        heard = serve_held(it, [])
        send(it, subjects.pact(SESSION), sign(pact_set(3, CLOSED), it.control.key))
        wait_for(lambda: heard and heard[-1].revisions == {"bot": 3})
        with pytest.raises(Denied):
            wire(1)
    assert heard[-1].holdings[0].enforced == load(CLOSED).version


def test_a_forged_edge_is_refused_and_counted() -> None:
    before = quiet.refused_orders["pact: forged"]
    with Linked() as it, checkrein.run():
        send(it, subjects.pact(SESSION), sign(pact_set(3, CLOSED), SigningKey.generate()))
        wait_for(lambda: quiet.refused_orders["pact: forged"] == before + 1)
        assert wire(1) == 1


def test_the_answer_to_what_is_held_brings_what_was_missed() -> None:
    with Linked() as it, checkrein.run():
        answers = [sign(pact_set(9, CLOSED), it.control.key)]
        heard = serve_held(it, answers)
        send(it, subjects.PACTS_ASK, b"")
        wait_for(lambda: it.house.client.holdings()[0].revision == 9)
        wait_for(lambda: heard and heard[-1].revisions == {"bot": 9})


LEARNED = "pact: learned\nflow: [learned]\n"


def known(runs: int) -> bytes:
    """A profile in which nothing is wired."""
    profile = Profile(types={})
    for _ in range(runs):
        learn(profile, "bills", Lesson(sinks={"look"}))
    return packed(profile)


def wired(it: House) -> list[tuple[str, str]]:
    return [(e["verdict"], e["rule"]) for e in it.recorder.of("scope.decision") if e["guard"]]


def test_a_new_run_has_the_profile_and_one_under_way_keeps_its_own() -> None:
    with house() as it:
        it.client.adopt(pact_set(1, LEARNED, profile=known(20)))
        with checkrein.run(task_type="bills"):
            it.client.adopt(pact_set(2, LEARNED, profile=b""))
            with pytest.raises(Denied, match="20 runs of it known"):
                wire(1)
        with checkrein.run(task_type="bills") as run:
            it.client.adopt(pact_set(3, LEARNED, profile=known(20)))
            assert run.seat.revision == 3
            with pytest.raises(Denied, match="only 0 of 20 runs"):
                wire(1)
    assert [verdict for verdict, _ in wired(it)] == ["deny", "ask", "deny"]


def test_a_run_that_began_before_the_server_was_heard_gets_the_first_profile() -> None:
    with house() as it, checkrein.run(task_type="bills"):
        it.client.adopt(pact_set(1, LEARNED, profile=known(20)))
        with pytest.raises(Denied, match="20 runs of it known"):
            wire(1)


def test_what_is_only_watched_has_the_profile_too() -> None:
    with house() as it:
        it.client.adopt(pact_set(1, "", LEARNED, profile=known(20)))
        with checkrein.run(task_type="bills"):
            assert wire(1) == 1
    (told,) = [e for e in it.recorder.of("scope.decision") if e.get("shadow")]
    assert (told["verdict"], told["rule"]) == ("deny", "flow[0]")


def test_a_profile_that_cannot_be_read_is_said_and_the_rule_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with house() as it, caplog.at_level(logging.WARNING, "checkrein"):
        assert it.client.adopt(pact_set(1, LEARNED, profile=b"\xc1")) == ""
        with (
            checkrein.run(task_type="bills"),
            pytest.raises(Denied, match="only 0 of 20 runs"),
        ):
            wire(1)
        assert quiet.faults.pop("reading the flow profile of bot") == 1
    assert "reading the flow profile of bot" in caplog.text
