"""From a scope rule to what judges a call's arguments."""

from collections.abc import Callable
from typing import Any, Protocol

from checkrein.policy.scopes.arguments import Unjudged, compile_argument, replaced
from checkrein.policy.scopes.globs import shown
from checkrein.policy.scopes.hosts import Hosts
from checkrein.policy.scopes.paths import Paths
from checkrein.policy.scopes.repos import Repos
from checkrein.policy.scopes.types import Outside, ScopeError, ScopeRule

_CACHED_MAX = 512
_CACHED_CHARS_MAX = 2048


class Judges(Protocol):
    """What a kind of scope says of one text: empty when it is inside, else the reason."""

    def judge(self, value: str) -> str: ...


class Scope:
    """A compiled scope rule. Safe from any thread; bounded in time by the length of the values.

    Pure, but for `paths` with a resolver, which looks at the file system.
    """

    def __init__(self, rule: ScopeRule, judges: Judges, is_pure: bool) -> None:
        self.rule = rule
        self._judges = judges
        self._is_pure = is_pure
        self._wanted = compile_argument(rule.kind, rule.argument)
        self._known: dict[str, str] = {}

    def judge(self, args: dict[str, Any]) -> str:
        """Empty: all that these arguments reach is inside. Else the reason. What cannot be judged
        is outside. Never raises for what an agent can pass."""
        return self.settle(args)[0]

    def pin(self, args: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments with each path replaced by what it really is; None when none differs. They
        are judged again by that same look: Outside when they are not inside any more."""
        reason, pinned = self.settle(args)
        if reason:
            raise Outside(reason)
        return pinned

    def settle(self, args: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
        """`judge` and `pin` in one, by a single look at the file system."""
        try:
            places = self._wanted.found(args)
        except Unjudged as error:
            return f"{error}, so the call is outside", None
        except RecursionError:
            return "the arguments are nested too deep to be judged", None
        changes: dict[tuple[str | int, ...], str] = {}
        for place in places:
            if isinstance(self._judges, Paths) and not self._is_pure:
                reason, real = self._judges.settle(place.value)
                if real != place.value:
                    changes[place.steps] = real
            else:
                reason = self._judged(place.value)
            if reason:
                return f"{shown(place.name, 60)}: {reason}", None
        return "", replaced(args, changes) if changes else None

    def judge_url(self, url: str) -> str:
        """For a hop of a redirect, see `hosts.same_scope`. Raises ScopeError for other kinds."""
        if self.rule.kind != "hosts":
            raise ScopeError("only a scope of hosts judges an address")
        return self._judged(url)

    def _judged(self, value: str) -> str:
        reason = self._known.get(value)
        if reason is None:
            reason = self._judges.judge(value)
            if len(value) <= _CACHED_CHARS_MAX:
                if len(self._known) >= _CACHED_MAX:
                    self._known = {}
                self._known[value] = reason
        return reason


def compile_scope(
    rule: ScopeRule,
    resolve: Callable[[str], str] | None = None,
    *,
    base: str = "",
    home: str = "",
    dialect: str = "",
) -> Scope:
    """Raises ScopeError when a pattern or the argument means nothing.

    `resolve`, `base` and `home` are for paths: see `paths`. `dialect`: the one that SQL is written
    in (a name that sqlglot knows); without it a text must be inside in every dialect it can be
    read in.
    """
    if not (rule.allow or rule.deny or rule.write):
        raise ScopeError("a scope without any pattern lets nothing through: name what it allows")
    if rule.write and rule.kind != "tables":
        raise ScopeError(f"`write` is for tables; `{rule.kind}` have `allow` and `deny`")
    match rule.kind:
        case "paths":
            return Scope(rule, Paths(rule, resolve, base, home), resolve is None)
        case "hosts":
            return Scope(rule, Hosts(rule), True)
        case "repos":
            return Scope(rule, Repos(rule), True)
        case "tables":
            from checkrein.policy.scopes.tables import Tables  # it imports a parser: 80 ms

            return Scope(rule, Tables(rule, dialect), True)
