"""The scripts of the demo's agents, and a few plain ones.

Each is a pure function of the conversation. Paces are chosen for people who watch.
"""

from checkrein.server.demo.replies import Call, Reply, Script, Turn

THINKING_S = 0.5


def default(turn: Turn) -> Reply:
    """Says back what it was asked."""
    return Reply(text=f"You said: {turn.prompt}")


def flaky(turn: Turn) -> Reply:
    """Overloaded at first; the client's own retry succeeds."""
    if turn.attempt == 0:
        return Reply(status=429, error="too many requests, try again", retry_after_s=0.01)
    return Reply(text="Second time lucky.")


def rate_limited(turn: Turn) -> Reply:
    del turn
    return Reply(status=429, error="you have used up your quota", retry_after_s=0.01)


def broken(turn: Turn) -> Reply:
    del turn
    return Reply(status=500, error="the model fell over")


SCRIPTS: dict[str, Script] = {
    "default": default,
    "flaky": flaky,
    "rate-limited": rate_limited,
    "broken": broken,
}
_ = Call
