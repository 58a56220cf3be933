"""The W3C `traceparent` header, which carries a task from one process to another."""

import re

from checkrein.world import is_trace_id

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def header_of(task_id: str, run_id: str) -> str:
    """The header that hands a run's task on."""
    return f"00-{task_id}-{span_of(run_id)}-01"


def span_of(run_id: str) -> str:
    """A run as a W3C parent id: the last 16 hex digits of its UUID."""
    return run_id.replace("-", "")[-16:]


def task_of(header: str | None) -> str:
    """The task id that a header carries; empty when there is none or it is malformed."""
    found = _FORM.fullmatch((header or "").strip().lower())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[4]):
        return ""
    return found[2] if is_trace_id(found[2]) and found[3] != "0" * 16 else ""
