"""An agent with the SDK whose tool is given and gives back what is in the file named: for
`test_canaries`."""

import json
import sys
from pathlib import Path

import checkrein


@checkrein.tool(kind="read")
def echo(text: str) -> str:
    return text


@checkrein.tool(kind="read")
def fail(text: str) -> str:
    raise ValueError(text)


@checkrein.tool(kind="read")
def forbidden(text: str) -> str:
    return text


checkrein.init(agent="leaky")
with checkrein.run(goal="echo it all"):
    for batch in json.loads(Path(sys.argv[1]).read_text()):
        echo(batch)
        for tool in (fail, forbidden):
            try:
                tool(batch)
            except Exception as error:  # what it says is recorded, and that is the point
                checkrein.reasoning(str(error))
        checkrein.memory.write("note", batch)
        checkrein.checkpoint("state", {"batch": batch})
    checkrein.output(batch)
