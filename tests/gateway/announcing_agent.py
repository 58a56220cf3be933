"""An agent with the SDK, whose models are behind the gateway. With `around`, it also asks once
without the SDK, by the same key."""

import json
import sys
import urllib.request
from typing import Any

import openai

import checkrein

KEY, GATEWAY = sys.argv[1:3]
ASK: Any = [{"role": "user", "content": "hello"}]


def asks_around_the_sdk(run_id: str) -> None:
    body = json.dumps({"model": "gpt-5-mini", "messages": ASK}).encode()
    head = {
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "x-checkrein-run": run_id,
    }
    url = f"{GATEWAY}/openai/v1/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=20) as answer:
        answer.read()


checkrein.init(agent="bot")
checkrein.instrument()
client = openai.OpenAI(base_url=f"{GATEWAY}/openai/v1", api_key=KEY)
with client, checkrein.run(goal="greet") as run:
    client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    if "around" in sys.argv:
        asks_around_the_sdk(run.run_id)
    for _ in client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True):
        pass
    sys.stdout.write(run.run_id + "\n")
    sys.stdout.flush()
    sys.stdin.read()
