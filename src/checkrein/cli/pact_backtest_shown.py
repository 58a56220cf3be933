"""A backtest for people: sums, the rules that decided, the runs that change."""

from typing import TYPE_CHECKING, Any

import msgspec

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, STRONG, Cell

if TYPE_CHECKING:
    from checkrein.analysis.reports import Comparison, Report
    from checkrein.analysis.sharing import Answer

BAR_WIDTH = 24
RULES_SHOWN_MAX = 20
RUNS_SHOWN_MAX = 10
_STYLES = {"deny": ALARM, "ask": CAUTION, "modify": PLAIN, "steer": PLAIN}
_EIGHTHS = " ▏▎▍▌▋▊▉"


def as_plain(answer: "Answer", seconds: float) -> dict[str, Any]:
    """Everything, for programs."""
    said: dict[str, Any] = {
        "lines": answer.lines, "rejected": answer.rejected_count, "seconds": round(seconds, 3),
        "lines_per_s": round(answer.lines / seconds) if seconds else 0,
    }  # fmt: skip
    if answer.comparison is not None:
        said["comparison"] = msgspec.to_builtins(answer.comparison)
    if answer.report is not None:
        said["report"] = msgspec.to_builtins(answer.report)
    return said


def show(answer: "Answer", seconds: float) -> None:
    if answer.comparison is not None:
        _compared(answer.comparison, seconds)
    elif answer.report is not None:
        _report(answer.report, seconds)


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """A bar of eighths of a character; anything above zero is seen."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _report(report: "Report", seconds: float) -> None:
    out.styled([
        Cell(f"{clean(report.pact, 80)} {report.version}", STRONG),
        Cell(f"  over {report.runs:,} runs, {report.calls:,} tool calls, {_usd(report.usd)}"),
        Cell(f"  ({report.events:,} events in {seconds:.1f} s)", CALM),
    ])  # fmt: skip
    out.say()
    for name, count in (
        ("denied", report.denied), ("asked", report.asked), ("changed", report.modified),
        ("steered", report.steered),
    ):  # fmt: skip
        _line(name, count, report.calls, "of the calls")
    _line("halted", report.halted, report.runs, "of the runs")
    _line("runs that change", report.runs_changed, report.runs, "of the runs")
    if report.refused_then:
        _line("now let pass", report.released, report.refused_then, "of the calls refused then")
    out.say(
        f"  saved             {report.saved_calls:>9,} calls, {report.saved_tokens:,} tokens, "
        f"{_usd(report.saved_usd)}"
    )
    exact = report.denied + report.asked + report.modified + report.steered
    if report.after_divergence:
        out.styled([Cell(
            f"  {report.after_divergence:,} of the {exact:,} verdicts come after a run's first "
            "refusal or question: an estimate", CALM,
        )])  # fmt: skip
    _rules(report)
    _changes(report)
    _released(report)


def _line(name: str, count: int, of: int, what: str) -> None:
    share = count / of if of else 0.0
    out.say(f"  {name:<17} {count:>9,}  {bar(share)} {share:>6.1%} {what}")


def _rules(report: "Report") -> None:
    if not report.rules:
        return
    out.say()
    most = report.rules[0].count
    rows = [
        [
            Cell(rule.verdict, _STYLES.get(rule.verdict, PLAIN)), Cell(clean(rule.rule, 60)),
            Cell(f"{rule.count:,}", PLAIN, right=True), Cell(f"{rule.exact:,}", CALM, right=True),
            Cell(f"{rule.runs:,}", PLAIN, right=True), Cell(bar(rule.count / most, 16).rstrip()),
        ]
        for rule in report.rules[:RULES_SHOWN_MAX]
    ]  # fmt: skip
    out.table(["VERDICT", "RULE", "COUNT", "EXACT", "RUNS", ""], rows)
    if len(report.rules) > RULES_SHOWN_MAX:
        out.say(f"and {len(report.rules) - RULES_SHOWN_MAX:,} more rules; --json has them")


def _changes(report: "Report") -> None:
    if not report.changes:
        return
    out.say()
    rows = [
        [
            Cell(clean(change.run_id, 40)), Cell(str(change.step), PLAIN, right=True),
            Cell("halt" if change.halts else change.verdict,
                 _STYLES.get(change.verdict, PLAIN)),
            Cell(clean(change.tool, 30)), Cell(clean(change.rule, 40)),
            Cell(_usd(change.usd) if change.usd else f"{change.calls} calls", PLAIN, right=True),
            Cell(clean(change.why, 90), CALM),
        ]
        for change in report.changes[:RUNS_SHOWN_MAX]
    ]  # fmt: skip
    out.table(["RUN", "STEP", "FIRST", "TOOL", "RULE", "SAVED", "WHY"], rows)
    if report.runs_changed > RUNS_SHOWN_MAX:
        out.say(f"and {report.runs_changed - RUNS_SHOWN_MAX:,} more runs")


def _released(report: "Report") -> None:
    for one in report.released_calls[:RUNS_SHOWN_MAX]:
        out.styled([
            Cell("now let pass  ", CAUTION),
            Cell(f"{clean(one.tool, 40)} in {clean(one.run_id, 40)}, step {one.step}: "),
            Cell(f"was {clean(one.was, 90)}", CALM),
        ])  # fmt: skip


def _compared(found: "Comparison", seconds: float) -> None:
    before, after = found.before, found.after
    out.styled([
        Cell(f"{clean(before.pact, 60)} {before.version} → {clean(after.pact, 60)} "
             f"{after.version}", STRONG),
        Cell(f"  over {after.runs:,} runs, {after.calls:,} tool calls"),
        Cell(f"  ({after.events:,} events in {seconds:.1f} s)", CALM),
    ])  # fmt: skip
    out.say()
    rows = []
    for name, field in (
        ("denied", "denied"), ("asked", "asked"), ("changed", "modified"), ("steered", "steered"),
        ("halted runs", "halted"), ("runs that change", "runs_changed"),
        ("refused then, now let pass", "released"), ("calls saved", "saved_calls"),
        ("tokens saved", "saved_tokens"),
    ):  # fmt: skip
        old, new = getattr(before, field), getattr(after, field)
        style = PLAIN if old == new else STRONG
        rows.append([
            Cell(name), Cell(f"{old:,}", PLAIN, right=True), Cell(f"{new:,}", PLAIN, right=True),
            Cell(f"{new - old:+,}" if new != old else "", style, right=True),
        ])  # fmt: skip
    rows.append([
        Cell("US$ saved"), Cell(_usd(before.saved_usd), PLAIN, right=True),
        Cell(_usd(after.saved_usd), PLAIN, right=True), Cell(""),
    ])  # fmt: skip
    out.table(["", "BEFORE", "AFTER", "CHANGE"], rows)
    out.say()
    out.say(f"{found.stricter:,} verdicts stricter, {found.looser:,} looser")
    for pair, count in sorted(found.pairs.items(), key=lambda item: -item[1]):
        out.say(f"  {count:>9,}  {pair}")
    for one in found.differences[:RUNS_SHOWN_MAX]:
        out.styled([
            Cell(f"{one.before} to {one.after}  ", _STYLES.get(one.after, PLAIN)),
            Cell(f"{clean(one.tool, 40)} in {clean(one.run_id, 40)}, step {one.step}"),
            Cell(f"  {clean(one.after_rule or one.before_rule, 40)}: {clean(one.why, 90)}", CALM),
        ])  # fmt: skip


def _usd(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.01 or not usd else f"${usd:.4f}"
