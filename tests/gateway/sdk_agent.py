"""An agent with the SDK and no supervisor, whose model calls go through the gateway."""

import sys
import time

import openai

import checkrein

checkrein.init(agent="unheld")
checkrein.instrument()
client = openai.OpenAI(max_retries=0)
with checkrein.run(goal="ask for ever") as run:
    sys.stdout.write(run.run_id + "\n")
    sys.stdout.flush()
    for _ in run.steps():
        client.chat.completions.create(
            model="scripted:quick", messages=[{"role": "user", "content": "go"}]
        )
        time.sleep(0.1)
