"""One run's flows: what it has heard and read, and where a call's values come from."""

from typing import Any, NamedTuple

from checkrein.policy.flow.directives import DIRECTIVES_MAX, Directive
from checkrein.policy.flow.identifiers import (
    Identifier,
    Leaf,
    goes_to,
    is_weak,
    leaves,
    named,
    strong,
)
from checkrein.policy.flow.index import SENT_MAX, Index
from checkrein.policy.flow.normal import decoded, keys
from checkrein.policy.flow.profile import WHOLE, Lesson, Profile, TypeProfile
from checkrein.policy.flow.signs import is_plain

PENDING_MAX = 256
MEMORY_KEYS_MAX = 1_000
ORIGINS_MAX = 64
UNSETTLED_MAX = 64
READINGS_MAX = 64
LESSON_MAX = 500
_ADDRESSES = frozenset({"mail", "url", "host", "account", "phone"})


class Origin(NamedTuple):
    """One value of a call and the sources it has stood in (a bit each). `free`: part of prose.
    `address`: a mail address, URL, host, account or phone number. `unknown`: found nowhere, while
    not everything was indexed."""

    argument: str
    text: str
    key: str
    free: bool
    address: bool
    mask: int
    unknown: bool

    @property
    def by_user(self) -> bool:
        return bool(self.mask & 1)


class Lineage:
    """A call and its values' origins. `acts`: it has an effect; else it is a read, and its origins
    are only the addresses it goes to.

    The origins are looked up when they are first asked for, or before the state takes in anything
    new: they say where the values had stood when the call was made."""

    __slots__ = ("_origins", "_state", "acts", "leaves", "tool")

    def __init__(self, state: "State", tool: str, acts: bool, leaves: list[Leaf]) -> None:
        self.tool = tool
        self.acts = acts
        self.leaves = leaves
        self._state = state
        self._origins: list[Origin] | None = None

    @property
    def origins(self) -> list[Origin]:
        if self._origins is None:
            self._state.settle()
        if self._origins is None:
            raise RuntimeError("looking up where the values come from has failed")
        return self._origins

    def settle(self, origins: list[Origin]) -> None:
        """These are they; the texts are no longer needed."""
        self._origins, self.leaves = origins, []

    def edges(self, state: "State", origin: Origin) -> list[str]:
        """The edges by which a value may have come here; none when the user named it."""
        if origin.by_user:
            return []
        target = f"{self.tool}.{origin.argument}"
        if not origin.mask:
            return [f"{'unknown' if origin.unknown else 'nowhere'} > {target}"]
        return [f"{name} > {target}" for name in state.index.names(origin.mask)]


class State:
    """What a run has seen. Bounded: the index, 32 directives, 256 calls in flight, 1,000 memory
    keys."""

    def __init__(self, profile: Profile | None, task_type: str) -> None:
        self.index = Index()
        self.task_type = task_type
        self.know(profile or Profile())
        self.directives: list[Directive] = []
        self.private_tool = ""
        self.untrusted_tool = ""
        self.memory: dict[str, bool] = {}
        self.lesson = Lesson(sinks=set(), edges=set(), values={})
        self.pending: dict[str, Lineage] = {}
        self._unsettled: list[Lineage] = []
        self._readings: dict[str, list[tuple[str, list[Identifier]]]] = {}
        self.tools_seen: set[str] = set()

    def know(self, profile: Profile) -> None:
        """From now on this is usual."""
        self.profile: TypeProfile = profile.of(self.task_type)
        self.whole: TypeProfile = profile.of(WHOLE)

    def lineage(self, tool: str, acts: bool, arguments: dict[str, Any]) -> Lineage:
        """Where a call's values come from. The values are taken now: the tool may change them."""
        made = Lineage(self, tool, acts, leaves(arguments))
        self._readings.clear()
        self._unsettled.append(made)
        if len(self._unsettled) >= UNSETTLED_MAX:
            self.settle()
        return made

    def settle(self) -> None:
        """To be called before anything is read or heard: looks up the origins that nobody has asked
        for so far, in the order of the calls."""
        unsettled = self._unsettled
        while unsettled:
            each = unsettled.pop(0)
            each.settle(self._origins(each))

    def readings(self, text: str) -> list[tuple[str, list[Identifier]]]:
        """A text, and what it says once decoded, each with its strong identifiers. Kept until the
        next call, since several rules ask for the same text."""
        found = self._readings.get(text)
        if found is None:
            if is_plain(text):
                found = [(text, [])]
            else:
                found = [(each, list(strong(each))) for each in (text, *decoded(text))]
            if len(self._readings) < READINGS_MAX:
                self._readings[text] = found
        return found

    def _origins(self, lineage: Lineage) -> list[Origin]:
        origins: list[Origin] = []
        acts = lineage.acts
        for leaf in lineage.leaves:
            if len(origins) >= ORIGINS_MAX:
                break
            if leaf.free and acts:
                self._prose(leaf, origins)
            elif acts or goes_to(leaf):
                self._value(leaf, acts, origins)
        if acts:
            for each in origins:
                if not each.mask & self.index.trusted_mask:
                    self._passed_on(each)
        return origins

    def _value(self, leaf: Leaf, acts: bool, origins: list[Origin]) -> None:
        inside = named(leaf.text) if len(leaf.text) > 2 else ()
        whole = len(inside) == 1 and len(inside[0].text) + 2 > len(leaf.text)
        address = False
        for each in inside:
            address = address or each.kind in _ADDRESSES
        if not acts and not address:
            return
        if not whole and is_weak(leaf.argument, leaf.text):
            return
        found = self.index.find(leaf.text)
        if not found.mask and not whole and inside:
            for each in inside:
                self._identifier(leaf, each.text, each.kind in _ADDRESSES, origins)
            return
        key = keys(leaf.text)[1]
        origins.append(
            Origin(leaf.argument, leaf.text, key, False, address, found.mask, found.unknown)
        )

    def _prose(self, leaf: Leaf, origins: list[Origin]) -> None:
        for _, inside in self.readings(leaf.text):
            for each in inside:
                if len(origins) >= ORIGINS_MAX:
                    return
                if each.kind in _ADDRESSES:
                    self._identifier(leaf, each.text, True, origins)

    def _identifier(self, leaf: Leaf, text: str, address: bool, origins: list[Origin]) -> None:
        found = self.index.find(text)
        origins.append(
            Origin(
                leaf.argument, text, keys(text)[1], leaf.free, address, found.mask, found.unknown
            )
        )

    def _passed_on(self, origin: Origin) -> None:
        index = self.index
        wanted, bare = keys(origin.text)
        if len(bare) >= 2 and len(index.sent) < SENT_MAX:
            index.sent.add(wanted, bare)

    def await_return(self, call_id: str, lineage: Lineage) -> None:
        if len(self.pending) >= PENDING_MAX:
            del self.pending[next(iter(self.pending))]
        self.pending[call_id] = lineage

    def happened(self, call_id: str) -> None:
        """A call in flight has done what it was to do: part of what this run teaches."""
        lineage = self.pending.pop(call_id, None)
        if lineage is None:
            return
        lesson = self.lesson
        if len(lesson.sinks) < LESSON_MAX and (lineage.acts or lineage.origins):
            lesson.sinks.add(lineage.tool)
        for origin in lineage.origins:
            if len(lesson.edges) < LESSON_MAX:
                lesson.edges.update(lineage.edges(self, origin))
            if not origin.free and not origin.by_user and len(lesson.values) < LESSON_MAX:
                target = f"{lineage.tool}.{origin.argument}"
                lesson.values.setdefault(target, set()).add(origin.key)

    def ordered(self, found: list[Directive]) -> None:
        """Directives were read; the strongest 32 are kept."""
        if found:
            self.directives += found
            self.directives.sort(key=lambda each: -each.score)
            del self.directives[DIRECTIVES_MAX:]
