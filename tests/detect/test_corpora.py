"""Real agent runs, where the corpora are at hand."""

import gzip
import json
from pathlib import Path

import pytest

from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.detect.recorded import lines_of, numbered_events_of
from checkrein.events import codec
from checkrein.events.types import Signal
from checkrein.policy.pact import default_pact

CORPORA = next(
    (each / "shared" / "corpora" for each in Path(__file__).parents
     if (each / "shared" / "corpora").is_dir()), None,
)  # fmt: skip
pytestmark = pytest.mark.skipif(CORPORA is None, reason="the corpora are not at hand")
NAMES = sorted(each.parent.name for each in CORPORA.glob("*/events.jsonl.gz")) if CORPORA else []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(120)
def test_every_corpus_goes_through_whole(name: str) -> None:
    assert CORPORA is not None
    rejected: list[tuple[int, str]] = []
    errors: list[tuple[str, str]] = []
    pact = default_pact()
    engine = Engine(detectors(), lambda *about: pact, lambda *why: errors.append(why))
    lines = 0

    def counted() -> object:
        nonlocal lines
        for line in lines_of(CORPORA / name / "events.jsonl.gz"):
            lines += 1
            yield line

    seen = set()
    for number, (at, event) in enumerate(
        numbered_events_of(counted(), rejected=lambda *why: rejected.append(why))  # type: ignore[arg-type]
    ):
        seen.add(at)
        engine.observe(event)
        if number % 50 == 0:
            assert type(codec.decode(codec.encode(event))) is type(event)
    assert not rejected
    assert not errors
    assert lines == len(seen) > 100


@pytest.mark.timeout(120)
def test_runs_that_did_their_work_are_rarely_called_loops() -> None:
    """Useful AgentDojo runs without an attack. Those that are flagged do make the same call five
    times and more: what is bounded here is how many there are."""
    assert CORPORA is not None
    useful = set()
    with gzip.open(CORPORA / "agentdojo" / "labels.jsonl.gz", "rt") as labels:
        for line in labels:
            label = json.loads(line)
            if label["utility"] and not label["injected"]:
                useful.add(label["run_id"])
    pact = default_pact()
    engine = Engine(detectors(), lambda *about: pact)
    flagged, others = set(), set()
    for (run_id, _), event in numbered_events_of(
        lines_of(CORPORA / "agentdojo" / "events.jsonl.gz")
    ):
        for found in engine.observe(event):
            if isinstance(found, Signal) and found.detector == "loop" and found.level == "breach":
                (flagged if run_id in useful else others).add(run_id)
    share = len(flagged) / len(useful)
    assert share < 0.0125, f"{len(flagged)} of {len(useful)}"
    assert len(others) > 20 * len(flagged), "what is flagged does fail, as a rule"
