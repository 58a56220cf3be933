"""What of a server's tools an agent is shown: those that its pact lets it call, with its limits."""

from collections.abc import Iterable
from typing import Any

from checkrein.policy.limits import in_words, limited
from checkrein.policy.rulebook import book_of
from checkrein.policy.types import Pact


def shown(tools: Iterable[dict[str, Any]], pact: Pact) -> list[dict[str, Any]]:
    """The tools as they may be shown: none that the pact does not list."""
    book = book_of(pact)
    found = []
    for given in tools:
        listed = book.tool(given["name"])
        if listed.missing is not None:
            continue
        rules = [one.rule for one in listed.books]
        if not any(rule.allow or rule.ask or rule.once_per or rule.arguments for rule in rules):
            found.append(given)
            continue
        tool = given | {"inputSchema": limited(given.get("inputSchema"), rules)}
        words = in_words(rules)
        if words:
            description = str(tool.get("description") or "")
            tool["description"] = f"{description}\n\n[checkrein: {words}]".lstrip()
        found.append(tool)
    return found
