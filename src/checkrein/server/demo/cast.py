"""Who plays in the demo, what each does wrong, and what must catch it."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

AGENTS = Path(__file__).parent / "agents"
CATCH_SECONDS_MAX = 120.0
LIBRARIES = {
    "LangGraph": ("langgraph", "langchain_openai"),
    "LangGraph, Anthropic": ("langgraph", "langchain_anthropic"),
    "OpenAI Agents SDK": ("agents",),
    "Pydantic AI": ("pydantic_ai", "openai"),
    "plain OpenAI": ("openai",),
    "plain Anthropic": ("anthropic",),
    "plain HTTP": (),
    "plain": (),
}
"""What the demo's agents are made with, and the modules that this takes."""


@dataclass(frozen=True)
class Part:
    """One agent. `caught_by` names the detectors of which any will do; without any, its run must
    end as `ends` says with no breach against it. The parts of the `chain` share one task. A
    `stranger` is started without `checkrein run`: it has a key for the gateway, no more."""

    agent: str
    does: str
    made_with: str
    caught_by: tuple[str, ...] = ()
    ends: str = "completed"
    room: str = "demo"
    begins_s: float = 0.0
    chain: bool = False
    stranger: bool = False
    options: tuple[str, ...] = ()

    @property
    def lacks(self) -> list[str]:
        """The libraries it is made with that are not installed here."""
        needed = LIBRARIES[self.made_with]
        return [name for name in needed if importlib.util.find_spec(name) is None]

    @property
    def program(self) -> Path:
        return AGENTS / f"{self.agent}.py"

    @property
    def pact(self) -> Path:
        return AGENTS / f"{self.agent}.yaml"


CAST: tuple[Part, ...] = (
    Part("librarian", "behaves well", "LangGraph"),
    Part("researcher", "asks the same in ever new words", "plain OpenAI", ("loop",), begins_s=1),
    Part("essayist", "burns tokens", "plain Anthropic", ("budget", "token-surge"), begins_s=2),
    Part(
        "clerk",
        "reaches for a tool outside its pact",
        "OpenAI Agents SDK",
        ("scope", "unknown-tool"),
        begins_s=3,
    ),
    Part("courier", "dies without a word", "Pydantic AI", ("process-death",), begins_s=4),
    Part("watchman", "hangs in a tool", "LangGraph, Anthropic", ("slow-tool",), begins_s=5),
    Part(
        "bookkeeper",
        "knows nothing of Checkrein, and may not pay so much",
        "plain HTTP",
        ("scope",),
        begins_s=6,
        stranger=True,
    ),
    Part(
        "planner",
        "hands on a plan that cannot work",
        "plain OpenAI",
        room="closing",
        begins_s=6,
        chain=True,
    ),
    Part(
        "executor",
        "breaks on it, the first hop of the chain",
        "OpenAI Agents SDK",
        ("tool-failure", "loop"),
        room="closing",
        begins_s=6,
        chain=True,
    ),
    Part(
        "validator",
        "waits for a result that never comes",
        "plain Anthropic",
        ends="failed",
        room="closing",
        begins_s=6,
        chain=True,
    ),
)

VISITORS = Part(
    "librarian", "works on, for you to try commands on", "LangGraph", room="library",
    options=("--questions", "1000000"),
)  # fmt: skip
