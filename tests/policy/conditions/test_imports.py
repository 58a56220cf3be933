"""What conditions cost a process that has none."""

import subprocess
import sys

LAZY = """
import sys
from checkrein.policy.conditions import compiling
heavy = {"lark", "re2", "checkrein.policy.conditions.emitting"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
compiling.kind_of_schema({"type": "object", "properties": {"a": {"type": "integer"}}})
assert not heavy & set(sys.modules), heavy & set(sys.modules)
condition = compiling.compile_condition("args.a > 1")
assert "lark" in sys.modules and "re2" not in sys.modules
assert condition({"args": {"a": 2}}) is True
compiling.compile_condition('args.a.matches("x")')
assert "re2" in sys.modules
"""


def test_nothing_heavy_is_imported_before_the_first_text() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LAZY], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
