"""What is no rule is refused, with its place and what was probably meant; and nothing hangs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policy.sequences.acting import compiled

from checkrein.policy.sequences.reach import unavoidable, unreachable
from checkrein.policy.sequences.reading import read_rule
from checkrein.policy.sequences.types import SequenceError
from checkrein.policy.sequences.words import KEYWORDS, RULE_CHARS_MAX


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("dney x if once y", 1, 1, "did you mean `deny`?"),
        ("deny refund unles formerly x", 1, 13, "did you mean `unless`?"),
        ("deny refund if formery verify within 3m", 1, 16, "did you mean `formerly`"),
        ("deny x if count y within 30 > 3", 1, 26, "a duration like 30m"),
        ("deny x if count y >", 1, 20, "here may stand a number"),
        ("deny x if", 1, 10, "the rule ends too early"),
        ("deny x", 1, 7, "`if`, `unless`"),
        ("deny x(args.a if once y", 1, 7, "a bracket that is not closed"),
        ("deny x() if once y", 1, 8, "an empty expression"),
        ("deny x if sum args.a > 3", 1, 15, "`sum` needs an `of`"),
        ("deny x if foo", 1, 14, "`since`"),
        ("deny x if foo in task", 1, 11, "what of `foo`?"),
        ("deny x if count y since z > 3", 1, 19, "`since` goes with"),
        ("deny x if once y within 1h within 2h", 1, 28, "`within` is given twice"),
        ("deny x if once y in task in task", 1, 26, "`in` is given twice"),
        ("deny kind:reed if once y", 1, 6, "did you mean `read`?"),
        ("deny x if once\n  y and or z", 2, 9, "`or` is not expected here"),
        ("deny x if once y say", 1, 21, "a text in quotes"),
        ('deny x if once y say "z', 1, 22, "a string that is not closed"),
        ("steer x if once y", 1, 18, "`steer` needs a `say"),
        ("deny x if once y %", 1, 18, "'%' begins nothing"),
        ("deny x if once y within 9999d", 1, 25, "outside what a duration may be"),
        ("deny x if once a b", 1, 18, "`b` is not expected here"),
        ("deny x|if if once y", 1, 6, "is a word of the language"),
        ("deny x if (once y", 1, 18, "`)`"),
        ("   ", 1, 1, "an empty rule"),
        ("deny x if count y > " + "9" * 31, 1, 21, "30 digits"),
        ("deny x if " + "(" * 50 + "once y" + ")" * 50, 1, 1, "more than 40 brackets"),
        ("deny x if once " + "y" * RULE_CHARS_MAX, 1, 1, "a rule may have 4096"),
        ("deny x if once y(args.a ==)", 1, 27, "ends too early"),
        ("deny x if once y(\nargs.a == 1\n&& nosuch > 1)", 3, 4, "unknown name `nosuch`"),
        ("deny x(call.args.y > 1) if once y", 1, 8, "unknown name `call`"),
        ("deny x if sum call.args.y of z > 1", 1, 15, "unknown name `call`"),
        ("deny x if once y(args.a < call.args.a)", 1, 18, "must be an equality"),
        ("deny x if once y(args.b > 1 && args.a < call.args.a)", 1, 32, "must be an equality"),
        ("deny x if once y(args.a == 1 || args.b == call.args.b)", 1, 18, "must be an equality"),
        ("deny x if once y(args.a == args.b + call.args.b)", 1, 28, "unknown name `args`"),
        ("deny x if once y(call.args.c == call.args.b)", 1, 18, "only one side"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_place(
    text: str, line: int, column: int, said: str
) -> None:
    with pytest.raises(SequenceError) as error:
        compiled("deny a if once b", text)
    assert said in error.value.problem
    assert (error.value.index, error.value.line, error.value.column) == (1, line, column)


def test_tools_whose_names_are_words_stand_in_quotes() -> None:
    rule = read_rule('deny "count"|a.b/c-d if once "a*"')
    assert rule.tools.names == ("count", "a.b/c-d")
    assert rule.tools.exact


def test_text_in_quotes() -> None:
    assert read_rule(r"""deny x if once y say 'it\'s "so" \\ \n'""").say == 'it\'s "so" \\ \n'


def test_brackets_and_strings_in_conditions_are_passed_over() -> None:
    text = """deny x(f(args.a[")"]) == '(\\'of' && r'\\' != "") if sum args[" of "] of y > 1"""
    rule = read_rule(text)
    assert rule.condition is not None
    assert rule.condition.text.endswith('!= ""')


def test_an_and_binds_closer_than_an_or() -> None:
    assert (
        read_rule("deny x if once a or once b and not once c").applies
        == read_rule("deny x if once a or (once b and (not (once c)))").applies
    )


pieces = st.lists(
    st.one_of(
        st.sampled_from([*KEYWORDS, "tool", "(", ")", "|", ">=", "30m", "5", '"', "'", "kind:read",
                         "args.x", "==", "call.args.x", "&&", "\\", "*", "[", "\n", "é", "-"]),
        st.text(max_size=3),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=500, deadline=1000)
@given(pieces, st.sampled_from(["", " "]))
def test_any_text_is_a_rule_or_refused(parts: list[str], between: str) -> None:
    text = between.join(parts)
    for each in (text, f"deny x if {text}", f"deny x({text}) if once y"):
        lines = each.split("\n")
        try:
            read_rule(each)
            place = (1, 1)
        except SequenceError as error:
            place = (error.line, error.column)
        assert 1 <= place[0] <= len(lines)
        assert 1 <= place[1] <= len(lines[place[0] - 1]) + 1


def test_rules_that_can_never_speak() -> None:
    tools = {"refund": None, "verify": None, "read_kb": None}
    found = unreachable(
        [
            "deny refnd unless formerly verify",
            "deny refund unless formerly verify",
            "deny refund if once verfy",
            "ask refund if count verify < 0",
            "deny delete_* if once verify",
            "deny refund unless count verify >= 0 or formerly nosuch",
        ],
        tools,
    )
    assert found == [
        (0, "no tool is `refnd` (did you mean `refund`?)"),
        (2, "it never applies: no tool is `verfy` (did you mean `verify`?)"),
        (3, "it never applies: a count is never below 0"),
        (4, "no tool is `delete_*`"),
        (5, "it never applies: no tool is `nosuch`"),
    ]


def test_rules_that_always_speak() -> None:
    found = unavoidable(
        ["deny refund unless formerly verfy", "deny refund unless formerly verify"],
        {"refund": None, "verify": None},
    )
    assert found == [(0, "it always applies: no tool is `verfy` (did you mean `verify`?)")]
