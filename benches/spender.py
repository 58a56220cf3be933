"""A process that spends from a shared budget as fast as it may, for `bench_budget`.

    python -m benches.spender THREADS AGENT

Every thread makes model calls of at most 100 output tokens until it is told that the budget is
spent. Begins when a line comes on standard input; prints {"calls", "nano_usd", "tokens", "asked"}.
"""

import json
import sys
import threading
from contextlib import suppress
from random import Random

import checkrein
from checkrein.policy.accounts import nano
from checkrein.policy.prices import cost
from checkrein.sdk.calls import ModelCall
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.process import client
from checkrein.sdk.run import RUN, Run

MODEL = "gpt-4o-mini"
TOKENS_MAX = 100
TEXT = "lorem ipsum dolor sit amet " * 40
GIVE_UP = 200


def spend(run: Run, seed: int, found: list[tuple[int, int, int]]) -> None:
    RUN.set(run)
    random, pause = Random(seed), threading.Event()
    calls = spent = tokens = waits = 0
    while waits < GIVE_UP:
        try:
            call = ModelCall.begin("openai", MODEL, [{"role": "user", "content": TEXT}],
                                   {"max_tokens": TOKENS_MAX})  # fmt: skip
        except Denied as denied:
            if denied.advice != "WAIT":
                break
            waits += 1
            continue
        except Halted:
            break
        pause.wait(random.random() * 0.004)
        inputs, outputs = 100 + random.randrange(100), random.randrange(TOKENS_MAX + 1)
        usd = cost("openai", MODEL, inputs, outputs) or 0.0
        call.end("done", input_tokens=inputs, output_tokens=outputs)
        calls += 1
        spent += nano(usd)
        tokens += inputs + outputs
    found.append((calls, spent, tokens))


def main() -> None:
    threads, agent = int(sys.argv[1]), sys.argv[2]
    checkrein.init(agent=agent, room="bench")
    found: list[tuple[int, int, int]] = []
    with suppress(Halted), checkrein.run(goal="spend", task_type="bench") as run:
        print("ready", flush=True)
        sys.stdin.readline()
        workers = [
            threading.Thread(target=spend, args=(run, seed, found)) for seed in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    calls, spent, tokens = (sum(one[at] for one in found) for at in range(3))
    asked = client().purses.purse.asked
    print(json.dumps({"calls": calls, "nano_usd": spent, "tokens": tokens, "asked": asked}))


if __name__ == "__main__":
    main()
