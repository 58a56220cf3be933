"""An agent without any library: asks its model again and again, and says what came of it. SCRIPT
names what the model plays. Needs no SDK, so none is loaded (start it with `python -I`)."""

import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit

script = sys.argv[1]
base = urlsplit(os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:9/v1"))
key = os.environ["OPENAI_API_KEY"]


def ask() -> int:
    body = {"model": f"scripted:{script}", "messages": [{"role": "user", "content": "go"}]}
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=60)
    try:
        connection.request(
            "POST", f"{base.path}/chat/completions", json.dumps(body | {"stream": True}),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )  # fmt: skip
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


sys.stdout.write(json.dumps(dict(os.environ)) + "\n")
sys.stdout.flush()
while True:
    sys.stdout.write(f"{ask()}\n")
    sys.stdout.flush()
    time.sleep(0.02)
