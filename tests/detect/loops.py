"""A generator of loops, and of what only looks like one, with known labels.

Each class is a function of a random source; it gives the calls an agent makes, in order, and what
each brings. `LOOPS` should be refused, `NOT_LOOPS` never.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple


class Made(NamedTuple):
    tool: str
    arguments: dict[str, Any]
    result: Any
    failed: bool = False


LENGTH = 24
_SUBJECTS = (
    "refund policy late delivery", "visa requirements business travel",
    "invoice overdue customer reminder", "warranty broken hinge laptop",
    "parking permit resident zone",
)  # fmt: skip
_FRAMES = ("{}", "please find {}", "{} information", "what is the {}", "{} details", "the {}")
_NEWS = "the document says that claims must be filed within the period stated in the contract"


def _words(random: Random) -> list[str]:
    return random.choice(_SUBJECTS).split()


def _text(random: Random, length: int = 30) -> str:
    return " ".join(f"{random.getrandbits(32):08x}" for _ in range(length))


def _paraphrase(random: Random, words: list[str]) -> str:
    shuffled = random.sample(words, len(words))
    return random.choice(_FRAMES).format(" ".join(shuffled))


def exact(random: Random) -> Iterator[Made]:
    query = " ".join(_words(random))
    for _ in range(LENGTH):
        yield Made("search_kb", {"query": query, "limit": 5}, {"items": [_NEWS], "total": 1})


def formatting(random: Random) -> Iterator[Made]:
    query = " ".join(_words(random))
    for _ in range(LENGTH):
        text = random.choice((query, query.title(), query.replace(" ", "  "), f" {query} "))
        limit: Any = random.choice((5, 5.0, "5"))
        yield Made("search_kb", {"query": text, "limit": limit}, {"items": [_NEWS], "total": 1})


def paraphrase(random: Random) -> Iterator[Made]:
    words = _words(random)
    for _ in range(LENGTH):
        yield Made("search_kb", {"query": _paraphrase(random, words)}, {"items": [_NEWS]})


def volatile(random: Random) -> Iterator[Made]:
    query = " ".join(_words(random))
    for count in range(LENGTH):
        request = f"{random.getrandbits(64):016x}"
        result = {
            "items": [_NEWS], "request_id": request, "elapsed_ms": random.randint(1, 900),
            "at": f"2026-11-21T10:{count:02d}:07Z", "took": f"{random.randint(2, 90)} ms",
        }  # fmt: skip
        yield Made("search_kb", {"query": query, "request_id": request}, result)


def two_cycle(random: Random) -> Iterator[Made]:
    order = f"ORD-{random.randint(1000, 9999)}"
    for count in range(LENGTH):
        if count % 2:
            yield Made("get_shipment", {"order": order}, {"order": order, "state": _NEWS})
        else:
            yield Made("get_order", {"id": order}, {"id": order, "note": _NEWS, "open": True})


def three_cycle_paraphrased(random: Random) -> Iterator[Made]:
    words = _words(random)
    for count in range(LENGTH):
        match count % 3:
            case 0:
                yield Made("plan", {"goal": _paraphrase(random, words)}, f"first search: {_NEWS}")
            case 1:
                yield Made("search_kb", {"query": _paraphrase(random, words)}, {"items": [_NEWS]})
            case _:
                yield Made("review", {"text": _paraphrase(random, words)}, f"too vague: {_NEWS}")


def failing(random: Random) -> Iterator[Made]:
    path = f"/data/report-{random.randint(1, 99)}.csv"
    for _ in range(LENGTH):
        error = f"FileNotFoundError at 2026-11-21T10:00:{random.randint(10, 59)}Z: {path}"
        yield Made("read_file", {"path": path}, error, failed=True)


def empty(random: Random) -> Iterator[Made]:
    words = _words(random)
    for _ in range(LENGTH):
        yield Made("search_kb", {"query": _paraphrase(random, words)}, [])


def pagination(random: Random) -> Iterator[Made]:
    query = " ".join(_words(random))
    for page in range(1, LENGTH + 1):
        yield Made("search_kb", {"query": query, "page": page}, {"page": page, "x": _text(random)})


def batch_ids(random: Random) -> Iterator[Made]:
    first = random.randint(1000, 9000)
    for count in range(LENGTH):
        order = f"ORD-{first + count}"
        yield Made("get_order", {"id": order}, {"id": order, "state": "shipped", "paid": True})


def edit_test(random: Random) -> Iterator[Made]:
    for count in range(LENGTH // 2):
        body = _text(random, 12)
        yield Made("edit_file", {"path": "src/app.py", "body": body}, "ok")
        failed = max(0, 5 - count // 2)
        text = f"{failed} failed, {20 - failed} passed in {random.random():.2f} s: test_app.py"
        yield Made("run_tests", {"path": "tests"}, text * 2)


def bulk_write(random: Random) -> Iterator[Made]:
    for count in range(LENGTH):
        name = f"{random.choice(('anna', 'bob', 'chen', 'dara', 'eve'))}-{count}"
        yield Made("add_user_to_channel", {"user": name, "channel": "general"}, None)


def bulk_mail(random: Random) -> Iterator[Made]:
    body = _text(random, 25)
    for count in range(LENGTH):
        yield Made(
            "send_email",
            {"to": f"user{count}@example.org", "subject": "maintenance on Sunday", "body": body},
            {"status": "sent", "id": f"{random.getrandbits(64):016x}"},
        )


def polling_progress(random: Random) -> Iterator[Made]:
    job, done = f"job-{random.randint(1, 99)}", 0
    for _ in range(LENGTH):
        done = min(100, done + random.randint(1, 6))
        yield Made("get_job", {"id": job}, {"id": job, "percent": done, "state": "running" * 12})


def polling_short(random: Random) -> Iterator[Made]:
    """A status of a few characters that changes: news all the same."""
    job, done = f"job-{random.randint(1, 99)}", 0
    for _ in range(LENGTH):
        done += random.randint(1, 4)
        yield Made("get_status", {"id": job}, f"{done}% done")


def exploring(random: Random) -> Iterator[Made]:
    for count in range(LENGTH):
        tool = random.choice(("list_files", "read_file", "grep"))
        yield Made(tool, {"path": f"src/{_text(random, 1)}/m{count}.py"}, _text(random))


def interleaved(random: Random) -> Iterator[Made]:
    """The same overview again and again, with real work between."""
    for count in range(LENGTH // 2):
        yield Made("list_files", {"path": "src"}, {"files": ["a.py", "b.py", "c.py", _NEWS]})
        yield Made("read_file", {"path": f"src/{count}.py"}, _text(random))


Class = Callable[[Random], Iterator[Made]]

LOOPS: dict[str, Class] = {
    "exact": exact, "format": formatting, "paraphrase": paraphrase, "volatile": volatile,
    "two-cycle": two_cycle, "three-cycle, paraphrased": three_cycle_paraphrased,
    "failing": failing, "empty results": empty,
}  # fmt: skip
NOT_LOOPS: dict[str, Class] = {
    "pagination": pagination, "batch of ids": batch_ids, "edit and test": edit_test,
    "bulk write": bulk_write, "bulk mail": bulk_mail, "polling with progress": polling_progress,
    "polling a short status": polling_short,
    "exploring": exploring, "overview between work": interleaved,
}  # fmt: skip
