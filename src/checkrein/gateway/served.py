"""Which tools are judged when they are called here, and so not when a model proposes them: those of
the tool servers that the very agent uses through this gateway.

Another agent's tool of the same name is its own, and so is one whose server has gone.
"""

from collections import OrderedDict

AGENTS_MAX = 10_000
SERVERS_MAX = 64
"""Of one agent. What is forgotten is judged twice, never not at all."""


class ServedTools:
    """On the gateway's loop."""

    def __init__(self) -> None:
        self._agents: OrderedDict[str, OrderedDict[str, frozenset[str]]] = OrderedDict()

    def take(self, agent: str, server: str, tools: frozenset[str]) -> None:
        """The agent is shown these by this server from now on."""
        servers = self._agents.setdefault(agent, OrderedDict())
        self._agents.move_to_end(agent)
        servers[server] = tools
        servers.move_to_end(server)
        if len(servers) > SERVERS_MAX:
            servers.popitem(last=False)
        if len(self._agents) > AGENTS_MAX:
            self._agents.popitem(last=False)

    def drop(self, agent: str, server: str) -> None:
        """The agent's way to this server is closed."""
        servers = self._agents.get(agent, OrderedDict())
        servers.pop(server, None)
        if not servers:
            self._agents.pop(agent, None)

    def serves(self, agent: str, tool: str) -> bool:
        return any(tool in tools for tools in self._agents.get(agent, {}).values())
