"""An agent that counts: COUNT tool calls, each with its number, at a pace. For the fault tests."""

import sys
import time

import checkrein

count = int(sys.argv[1])
pace_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

checkrein.init()


@checkrein.tool(kind="read")
def look(number: int) -> str:
    return f"page {number}: {number * 7919 % 104729}"


with checkrein.run(goal="count to the end", task_type="count") as run:
    sys.stdout.write(run.run_id + "\n")
    sys.stdout.flush()
    for number, _step in enumerate(run.steps(), start=1):
        look(number)
        if number >= count:
            break
        time.sleep(pace_s)
sys.stdout.write("done\n")
