"""The page of the decision service against the service."""

import json
import re

import msgspec

from checkrein.cli.hook.claude_code import EVENTS
from checkrein.cli.hook.entry import _FLAGS, _TAKES
from checkrein.gateway.decide import agentgateway, litellm
from checkrein.gateway.decide.words import Ask, Told, read
from tests.docs.pages import DOCS, blocks

PAGE = DOCS / "decide.md"
TEXT = PAGE.read_text()


def test_the_table_of_fields_is_the_question() -> None:
    section = TEXT.split("## What can be said\n", 1)[1].split("\n## ", 1)[0]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert told == [field.name for field in msgspec.structs.fields(Ask)]


def test_what_is_shown_is_asked_and_answered_so() -> None:
    shown = [json.loads(block.text) for block in blocks("json") if block.page == PAGE]
    answers = [each for each in shown if "verdict" in each]
    assert len(answers) == 1
    for each in shown:
        if "verdict" in each:
            msgspec.convert(each, Told)
        else:
            read(json.dumps(each).encode())
    (asked,) = re.findall(r"-d '(.*)'$", TEXT, re.MULTILINE)
    assert read(asked.encode()).tool == "refund"


def test_every_verdict_and_event_is_told() -> None:
    for verdict in ("allow", "modify", "steer", "ask", "deny"):
        assert f"| `{verdict}` |" in TEXT
    for event in EVENTS:
        assert f"`{event}`" in TEXT


def test_options_that_are_named_exist() -> None:
    for option in re.findall(r"`(--[\w-]+)", TEXT):
        assert option in _TAKES or option in _FLAGS, option


def test_the_paths_of_others_are_real() -> None:
    assert f"{litellm.PREFIX}\n" in TEXT
    for way in ("request", "response", "authz"):
        assert f'"{agentgateway.PREFIX}/{way}"' in TEXT
    assert agentgateway.MODEL_HEADER in TEXT
