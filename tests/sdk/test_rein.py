"""The pure state machine of what a run was ordered."""

from hypothesis import given
from hypothesis import strategies as st

from checkrein.sdk.rein import DIRECTIVES_MAX, HALTED, OLD_EPOCH, Ordered, Rein


def order(verb: str, epoch: int, command: str = "", **arguments: object) -> Ordered:
    return Ordered(
        command_id=command or f"{verb}{epoch}", verb=verb, epoch=epoch, reason="r",
        arguments=arguments,
    )  # fmt: skip


def test_the_same_order_again_is_only_acknowledged() -> None:
    rein = Rein()
    assert rein.obey(order("inject", 1, text="x"), 0).taken == "taken"
    assert rein.obey(order("inject", 1, text="x"), 0).taken == "repeated"
    assert rein.take_directives() == ("x",)


def test_an_older_state_is_refused() -> None:
    rein = Rein()
    rein.obey(order("pause", 5), 0)
    answer = rein.obey(order("resume", 4), 0)
    assert (answer.taken, answer.why) == ("refused", OLD_EPOCH)
    assert rein.state == "paused"


def test_a_halt_is_taken_even_late_and_nothing_follows_it() -> None:
    rein = Rein()
    rein.obey(order("pause", 5), 0)
    assert rein.obey(order("halt", 3), 0).taken == "taken"
    answer = rein.obey(order("resume", 9), 0)
    assert (answer.taken, answer.why) == ("refused", HALTED)
    assert rein.obey(order("halt", 10), 0).taken == "repeated"
    assert rein.state == "halted"


def test_an_act_does_not_raise_the_bar_for_states() -> None:
    rein = Rein()
    rein.obey(order("inject", 9, text="x"), 0)
    assert rein.obey(order("pause", 3), 0).taken == "taken"


def test_what_is_not_for_the_agents_process_is_refused() -> None:
    answer = Rein().obey(order("rollback", 1), 0)
    assert answer.taken == "refused"
    assert "rollback" in answer.why


def test_lost_contact_holds_beside_orders() -> None:
    rein = Rein()
    rein.lost_contact = True
    assert rein.taut
    rein.obey(order("pause", 1), 0)
    rein.lost_contact = False
    assert rein.taut
    rein.obey(order("resume", 2), 0)
    assert not rein.taut


def test_directives_are_bounded_and_the_oldest_goes() -> None:
    rein = Rein()
    for n in range(DIRECTIVES_MAX + 5):
        rein.add_directive(str(n))
    taken = rein.take_directives()
    assert len(taken) == DIRECTIVES_MAX
    assert taken[-1] == str(DIRECTIVES_MAX + 4)


states = st.lists(
    st.tuples(st.sampled_from(["pause", "resume", "halt"]), st.integers(1, 20)), max_size=30
)


@given(states)
def test_whatever_the_order_of_arrival_the_newest_state_wins_and_a_halt_is_final(
    arrived: list[tuple[str, int]],
) -> None:
    unique = list({epoch: (verb, epoch) for verb, epoch in arrived}.values())
    rein = Rein()
    halted = False
    for verb, epoch in unique:
        rein.obey(order(verb, epoch), 0)
        halted = halted or verb == "halt"
        assert (rein.state == "halted") is halted
    if unique and not halted:
        newest = max(unique, key=lambda one: one[1])[0]
        assert rein.state == {"pause": "paused", "resume": "running"}[newest]
