"""First of a chain of three: plans a yearly closing and hands the plan to the executor.

The plan names a ledger that does not exist. Everything after it is built on sand.
"""

import json
import logging

from openai import OpenAI

from checkrein.server.demo.agents import handoff

LOG = logging.getLogger("planner")


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    answer = OpenAI().responses.create(
        model="gpt-5-mini",
        instructions="You plan. Answer with JSON.",
        input="Plan the closing of the books.",
    )
    plan = json.loads(answer.output_text)
    handoff.give("plan.json", plan)
    LOG.info("handed on: %s", plan)


if __name__ == "__main__":
    main()
