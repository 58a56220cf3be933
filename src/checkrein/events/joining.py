"""How a call says which one it is, so that whoever passes it on joins it with what is recorded of
it: the names of headers, and of MCP's `_meta`.

    x-checkrein-run    the run's id
    x-checkrein-call   the call's id; set: the agent's SDK has judged and recorded this call
    x-checkrein-step   the run's step
    x-checkrein-task-type  the kind of task, for a run that a gateway begins
    traceparent        the task, as W3C says it

In `_meta` the first three are `checkrein/run`, `checkrein/call`, `checkrein/step`.
"""

RUN_HEADER = "x-checkrein-run"
CALL_HEADER = "x-checkrein-call"
STEP_HEADER = "x-checkrein-step"
TASK_TYPE_HEADER = "x-checkrein-task-type"
TRACE_HEADER = "traceparent"
META = "checkrein/"

OUR_KEYS = ("cra_", "crr_")
"""How keys begin that are good at a gateway only: an agent's, a run's."""
