"""What a run brings along when a pact is put in force: its past, as that pact's rules see it."""

from collections.abc import Iterable
from typing import Any

from checkrein.policy.rulebook import Book
from checkrein.policy.types import Deed, Place


def past_under(
    book: Book, before: Book | None, past: Any, deeds: Iterable[tuple[Deed, bool | None]]
) -> Any:  # fmt: skip
    """The state of its sequences; None: the pact has none. `before` and `past`: the book until now
    and the state under it. `deeds`: what the run did, oldest first, each with whether it went well
    (None: in flight); rules that are new are told of them."""
    rules = book.sequences
    if rules is None:
        return None
    if before is not None and before.sequences is not None and before.sequences is not rules:
        return rules.go_on(before.sequences, past, list(deeds))
    found = rules.new_state()
    rules.warm(found, list(deeds))
    return found


def flow_under(book: Book, place: Place, profile: Any) -> Any:
    """A new state of its flow, which has heard the goal; None: the pact has no rule of flow."""
    if book.flow is None:
        return None
    found = book.flow.new_state(profile, place.task_type)
    if place.goal:
        book.flow.heard(found, "user", place.goal)
    return found
