"""Sequence rules: what may be done depends on what has been done before.

    deny refund unless formerly verify_customer within 30m
    ask send_email if count send_email within 1h >= 5
    deny transfer if sum args.cents of transfer within 24h > 50000
    deny deploy unless formerly run_tests since edit_file
    deny delete_* if never before backup
    deny refund unless formerly approve_refund(args.order == call.args.order) in task
    steer search if count search >= 10 say "you have searched enough; conclude"

A rule is `VERDICT TOOLS[(CONDITION)] if|unless FORMULA [say "TEXT"]`. VERDICT is deny, ask or steer
(which must `say` something). TOOLS is a name, a glob (`delete_*`), alternatives (`a|b`), or
`kind:irreversible`; a name that is a word of this language stands in quotes. FORMULA combines with
`and`, `or`, `not` and parentheses, read from left to right no further than what decides:

    formerly X        a call of X was made before and succeeded
    never before X    not formerly X
    once X            a call of X was begun before, whatever came of it
    count X OP n      how many calls of X were begun, the call being judged among them
    sum E of X OP n   what the expression E of their arguments adds up to, likewise
    X since Y         X was begun, or came back, after the last success of Y began; or Y never
                      succeeded (`once X since Y` is the same)
    formerly X since Y    X succeeded, having begun after every Y so far had come back

Each may end in `within DURATION` (its age counts from when a call began; so long ago to the
nanosecond is still within) and in `in task` (calls of all runs of the task). X and Y are TOOLS with
a condition, or without. A condition on a past call reads that call's `args`, and may compare with
the judged call's: `args.x == call.args.y`, as a whole or joined by `&&`.

Calls in flight have begun and not succeeded: they count for `once`, `count` and `sum`, and do not
satisfy `formerly`. Where more calls would lift the rule instead of making it apply (`unless count
approve >= 2`), `count` and `sum` look at successful calls before this one only.

Whatever is not certain is taken the strict way. A past call whose condition has no value, or whose
tool's kind nobody knows, matches where that makes the rule apply, and not where it would lift it. A
condition of the judged call without a value, or a sum over an amount that is none, denies. State is
bounded: see `tracks`.
"""
