"""What of a server's tools an agent is shown: those that its pact lets it call, with its limits."""

from collections.abc import Iterable
from typing import Any

from checkrein.gateway.mcp.pins import Seen
from checkrein.policy.limits import in_words, limited
from checkrein.policy.rulebook import book_of
from checkrein.policy.types import Pact


def shown(seen: Iterable[Seen], pact: Pact) -> list[dict[str, Any]]:
    """The tools as they may be shown: none that is held, none that the pact does not list."""
    book = book_of(pact)
    found = []
    for each in seen:
        if each.held:
            continue
        listed = book.tool(each.tool["name"])
        if listed.missing is not None:
            continue
        rules = [one.rule for one in listed.books]
        if not any(rule.allow or rule.ask or rule.once_per or rule.arguments for rule in rules):
            found.append(each.tool)
            continue
        tool = each.tool | {"inputSchema": limited(each.tool.get("inputSchema"), rules)}
        words = in_words(rules)
        if words:
            description = str(tool.get("description") or "")
            tool["description"] = f"{description}\n\n[checkrein: {words}]".lstrip()
        found.append(tool)
    return found
