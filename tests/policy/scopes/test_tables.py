"""Tables: what an SQL text reaches, and the ways around."""

import sqlite3
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.policy.scopes.compiling import compile_scope
from checkrein.policy.scopes.sql import DIALECTS, read_sql
from checkrein.policy.scopes.tables import Tables
from checkrein.policy.scopes.types import ScopeError, ScopeRule

RULE = ScopeRule(
    kind="tables",
    argument="sql",
    allow=("orders", "customers", "sales.*", "my_f()"),
    write=("orders",),
    deny=("secret", "hr.pay"),
)
SCOPE = compile_scope(RULE)

INSIDE = [
    "SELECT 1",
    "SELECT o.id, c.name, sum(o.cents) FROM orders o JOIN customers c ON c.id = o.customer "
    "WHERE o.at > '2024-01-01' GROUP BY 1, 2 HAVING count(*) > 1 ORDER BY 3 DESC LIMIT 10",
    "select * from ORDERS;", 'SELECT * FROM "orders"', "SELECT * FROM [orders]",
    "SELECT * FROM `orders`", "SELECT * FROM sales.x", "SELECT my_f(1) FROM orders",
    "SELECT * FROM orders WHERE id IN (SELECT id FROM customers) -- why",
    "WITH x AS (SELECT * FROM orders), y AS (TABLE x) SELECT * FROM y UNION SELECT * FROM x",
    "WITH secret AS (SELECT 1 AS a) SELECT a FROM secret",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
    "INSERT INTO orders SELECT * FROM customers",
    "INSERT INTO orders (a, b) VALUES (1, 'from secret') ON CONFLICT DO NOTHING RETURNING id",
    "INSERT INTO orders VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a)",
    "UPDATE orders SET a = 1 FROM customers c WHERE c.id = orders.c",
    "UPDATE orders o SET a = 1 WHERE o.id = 3", "DELETE FROM orders WHERE a IS NULL",
    "DELETE FROM orders USING customers c WHERE c.id = orders.c", "TRUNCATE orders",
    "MERGE INTO orders USING customers c ON orders.id = c.id WHEN MATCHED THEN UPDATE SET a = 1 "
    "WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
    "CREATE TABLE orders (id int PRIMARY KEY, c int REFERENCES customers (id), d text DEFAULT 'x')",
    "CREATE INDEX i ON orders (a)", "ALTER TABLE orders ADD COLUMN x int", "DROP TABLE orders",
    "BEGIN; UPDATE orders SET a = 1; COMMIT;",
    "SELECT date_trunc('day', a), extract(year from a), a->>'x', cast(b as int), now() FROM orders",
    "SELECT strftime('%Y', a), julianday(a) FROM orders WHERE id = ? AND b = :name",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b), CASE WHEN a THEN 1 END FROM orders",
    "SELECT x::int, ARRAY[1, 2], '{}'::jsonb FROM orders FOR UPDATE", "SELECT TOP 5 * FROM orders",
    "SELECT a FROM orders WHERE b = 'a -- b # c /* d */ [e' AND c = '\\d+\\s' AND d = \"it's\"",
    "SELECT * FROM orders WHERE a = ANY(ARRAY['x', 'y']) AND b = 'it''s' /* why */",
    "SELECT * FROM generate_series(1, 3)", "orders", "ORDERS",
]  # fmt: skip

OUTSIDE = [
    "SELECT * FROM secret", "SELECT * FROM Secret", 'SELECT * FROM "SECRET"', "SELECT * FROM x",
    "SELECT * FROM a.secret", "SELECT * FROM pay", "SELECT * FROM b.hr.pay", "secret", "hr.pay",
    "SELECT * FROM public.orders", 'SELECT * FROM "ORDERS"', "SELECT * FROM a.b.c.orders",
    "SELECT 1; DROP TABLE customers", "DROP TABLE orders, customers", "customers",
    "INSERT INTO customers VALUES (1)", "INSERT INTO orders SELECT * FROM secret",
    "UPDATE orders SET a = (SELECT b FROM secret)", "UPDATE customers SET a = 1",
    "DELETE FROM customers", "TRUNCATE orders, customers", "SELECT * INTO customers FROM orders",
    "UPDATE a SET x = 1 FROM customers a", "DELETE a FROM customers AS a JOIN orders",
    "DELETE FROM orders USING customers AS orders", "UPDATE orders, customers SET customers.a = 1",
    "UPDATE orders JOIN customers ON 1 SET customers.a = 1",
    "WITH orders AS (SELECT * FROM customers) UPDATE orders SET a = 1",
    "WITH orders AS (SELECT * FROM secret) SELECT * FROM orders",
    "WITH x AS (SELECT * FROM x) SELECT * FROM x",
    "WITH y AS (SELECT * FROM x), x AS (SELECT 1) SELECT * FROM y",
    'WITH "X" AS (SELECT 1) SELECT * FROM x', "WITH RECURSIVE x AS (SELECT * FROM x) SELECT 1",
    "WITH d AS (DELETE FROM customers RETURNING *) SELECT * FROM d",
    "SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) q, x",
    "SELECT (SELECT max(a) FROM secret)",
    "SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM secret)",
    "SELECT 1 UNION SELECT a FROM secret", "SELECT 1 WHERE 'a' IN secret", "TABLE secret",
    "SELECT * FROM orders, LATERAL (SELECT * FROM secret) s", "SELECT * FROM 'file.csv'",
    "SELECT '\\', a FROM secret -- '", "SELECT '\\'; DROP TABLE customers; -- '",
    "SELECT a /*!50000 FROM secret */", "SELECT 1 /*M! FROM secret */", "SELECT 1 /* /* */ */",
    "SELECT 1--1 FROM secret", "SELECT U&\"\\0073ecret\" FROM orders", "SELECT * FROM `sec``ret`",
    "SELECT $$a$$, b FROM secret", "SELECT 1 # \n FROM secret", "SELECT \x00 1",
    "SELECT * FROM ord\u0435rs", "SELECT * FROM \uff4frders", "SELECT * FROM ord\u200bers",
    "SELECT pg_read_file('/etc/passwd')", "SELECT pg_catalog.pg_read_file('/x')",
    'SELECT "pg_read_file"(\'/x\')', "SELECT * FROM pg_read_file('/x')",
    "SELECT load_extension('x')",
    "SELECT lo_import('/x')", "SELECT * FROM dblink('x', 'select 1') AS t(a int)",
    "SELECT sleep(9)",
    "SELECT query_to_xml('select * from secret', true, true, '')", "SELECT load_file('/x')",
    "EXEC xp_cmdshell 'x'", "SELECT * FROM OPENROWSET('x', 'y', 'z')", "SELECT readfile('x')",
    "SELECT * FROM read_csv('x')", "SELECT * FROM read_parquet('x')", "SELECT evil.count(1)",
    "SELECT setval('x', 1)", "SELECT nextval('x')", "SELECT set_config('a', 'b', false)",
    "SELECT 1 INTO OUTFILE '/x'", "SELECT 1 INTO DUMPFILE '/x'",
    "LOAD DATA INFILE 'x' INTO TABLE y",
    "COPY orders TO '/x'", "COPY orders TO PROGRAM 'x'", "COPY orders FROM STDIN", "CALL f()",
    "EXPLAIN ANALYZE DELETE FROM orders", "EXPLAIN SELECT 1", "DESCRIBE orders", "SHOW TABLES",
    "PRAGMA x", "ATTACH 'x' AS y", "DETACH x", "SET x = 1", "USE x", "GRANT ALL ON orders TO y",
    "CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE c", "CREATE SCHEMA x", "CREATE DATABASE x",
    "CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END", "DROP DATABASE x",
    "DROP SCHEMA x",
    "CREATE TABLE orders (LIKE secret)", "CREATE TABLE orders AS SELECT * FROM secret",
    "CREATE VIEW orders AS SELECT * FROM secret",
    "CREATE EXTERNAL TABLE orders (a int) LOCATION 'x'",
    "ALTER TABLE orders RENAME TO customers", "VACUUM", "LOCK TABLE orders", "DO $$ BEGIN END $$",
    "PREPARE p AS SELECT 1", "DECLARE c CURSOR FOR SELECT 1", "HANDLER orders OPEN", "KILL 1",
    "IF 1=1 DROP TABLE customers", "BEGIN DROP TABLE customers END", "EXECUTE IMMEDIATE 'x'",
    "SELECT 1 # (SELECT a FROM ONLY secret* WITH ORDINALITY !! 2)", "SELECT 1 # 2",
    "SELECT '\\', a FROM ONLY secret* WITH ORDINALITY !! 2 -- '",
    "SELECT a['] FROM orders --'] FROM secret", "SELECT * FROM orders CROSS APPLY secret",
    "SELECT 1 -- x\rFROM secret", "UPDATE orders SET a = 1 FROM sales.orders",
    "SELECT 1 OPERATOR(evil.+) 2", "SELECT * FROM orders STRAIGHT_JOIN secret", "SELECT 'a",
    "SELECT * FROM orders NATURAL JOIN secret", "SELECT * FROM ((orders) JOIN secret ON 1 = 1)",
    "INSERT INTO orders TABLE secret", "SELECT ARRAY(SELECT a FROM secret)", "SELECT 1 /* x",
    "SELECT * FROM orders LIMIT (SELECT count(*) FROM secret)", "SELECT a FROM orders WHERE $$",
    "SELECT * FROM orders WHERE a = ANY (TABLE secret)", "SELECT $x$ $x$", "SELECT 'a\\'', b",
    "SELECT 1 SELECT * FROM secret", "not sql at all", "", "   ", "--", "SELECT", "SELECT * FROM",
    "SELECT * FROM orders WHERE (" + "(" * 80 + "1" + ")" * 81, "SELECT " + "a, " * 30_000 + "b",
    "SELECT 1;" * 60, "SELECT * FROM pg_shadow", "SELECT * FROM sqlite_master",
    "SELECT * FROM information_schema.tables", "SELECT * FROM IDENTIFIER('secret')",
    "SELECT CASE WHEN a THEN " * 90 + "1" + " END" * 90, "INSERT OVERWRITE DIRECTORY 'x' SELECT 1",
    "SELECT * FROM orders AS OF TIMESTAMP x", "SELECT * FROM @t", "SELECT * FROM {{ secret }}",
    "SELECT TRANSFORM (a) USING 'sh' FROM orders", "CACHE TABLE x", "INSTALL httpfs", "LOAD httpfs",
]  # fmt: skip


@pytest.mark.parametrize("sql", INSIDE)
def test_inside(sql: str) -> None:
    assert SCOPE.judge({"sql": sql}) == ""


@pytest.mark.parametrize("sql", OUTSIDE)
def test_outside(sql: str) -> None:
    begun = time.perf_counter()
    reason = SCOPE.judge({"sql": sql})
    assert time.perf_counter() - begun < 3
    assert reason
    assert reason.isprintable()
    assert len(reason) < 400


@pytest.mark.parametrize(
    "text",
    ["a" + " + a" * 4990, "a" + "[1]" * 3300, "NOT " * 9000 + "a", "- " * 9000 + "a",
     "a" + "::int" * 3000, "a" + "->'b'" * 3000, "a FROM b" + ", c" * 4900, "a" + ".a" * 4900,
     "a" + " UNION SELECT 1" * 3000, "(1, " * 55 + "1" + ")" * 55, "f(x -> " * 55 + "1" + ")" * 55,
     "CAST(a AS " + "STRUCT<a " * 3000 + "int" + ">" * 3000 + ")", "'" + "x" * 60_000 + "'"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_the_slowest_texts_take_little_time(text: str) -> None:
    begun = time.perf_counter()
    assert isinstance(read_sql(f"SELECT {text} -- every dialect is asked").problem, str)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    "dialect", ["postgres", "mysql", "sqlite", "tsql", "bigquery", "snowflake"]
)
def test_in_a_named_dialect(dialect: str) -> None:
    scope = Tables(RULE, dialect)
    assert not scope.judge("SELECT a FROM orders WHERE b = 'x'")
    assert not scope.judge("INSERT INTO orders (a) SELECT a FROM customers")
    for sql in ("SELECT * FROM secret", "DROP TABLE customers", "SELECT pg_read_file('x')"):
        assert scope.judge(sql)


def test_star_patterns_do_not_reach_the_servers_own_tables() -> None:
    scope = Tables(ScopeRule(kind="tables", allow=("*", "*.*", "*.*.*"), write=("*", "*.*")))
    assert not scope.judge("SELECT * FROM a, b.c")
    for table in ("pg_shadow", "pg_catalog.pg_shadow", "sqlite_master", "information_schema.tables",
                  "mysql.user", "sys.tables", "pragma_database_list",
                  "syslogins", "master.dbo.x", "main.sqlite_schema"):  # fmt: skip
        assert scope.judge(f"SELECT * FROM {table}"), table
    named = Tables(ScopeRule(kind="tables", allow=("information_schema.*", "pg_stat_*")))
    assert not named.judge("SELECT * FROM information_schema.tables, pg_stat_activity")
    assert named.judge("SELECT * FROM pg_shadow")


def test_only_deny_patterns_let_everything_else_be_read() -> None:
    scope = Tables(ScopeRule(kind="tables", deny=("users", "hr.*")))
    assert not scope.judge("SELECT * FROM orders, a.b")
    assert scope.judge("SELECT * FROM x.users")
    assert scope.judge("SELECT * FROM hr.a")
    assert scope.judge("DELETE FROM orders")
    assert scope.judge("SELECT * FROM pg_shadow")


def test_case_of_quoted_names() -> None:
    scope = Tables(ScopeRule(kind="tables", allow=("Users",)))
    for sql in ("SELECT * FROM users", "SELECT * FROM USERS", 'SELECT * FROM "Users"'):
        assert not scope.judge(sql)
    assert scope.judge('SELECT * FROM "USERS"')


@pytest.mark.parametrize(
    "pattern", ["", "a..b", "a.b.c.d", "a**", "a;b", "a b()", "x\u200b", "a/b"]
)
def test_patterns_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ScopeError):
        Tables(ScopeRule(kind="tables", deny=(pattern,)))


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(ScopeError):
        Tables(RULE, "klingon")


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    SCOPE.judge({"sql": "EXPLAIN ANALYZE SELECT 'never seen before'"})
    assert caplog.records == []


# ---------------------------------------------------------- against a real database's own account

TABLES = ("a", "b", "c", "secret")
_NAME = st.sampled_from([*TABLES, "main.a", '"b"', "[c]", "`secret`", "A", "x"])
_CELL = st.sampled_from(["1", "n", "count(*)", "'from secret'", "max(n)", "(select n from {})"])
_SHAPE = st.sampled_from([
    "select {c} from {t}", "select {c} from {t} x join {t} y on 1", "select {c} from {t}, {t} a",
    "with x as (select * from {t}) select {c} from x",
    "select {c} from {t} union select n from {t}",
    "with {t} as (select * from {t}) select {c} from {t}", "insert into {t} select n from {t}",
    "with x as (select * from {t}), y as (select * from x) select {c} from {t}, y",
    "update {t} set n = (select {c} from {t})", "delete from {t} where n in (select n from {t})",
    "with recursive x as (select n from {t} union all select n from x limit 3) select {c} from x",
    "select {c} from (select * from {t}) q where exists (select 1 from {t})",
    "select case when n in {t} then 1 end from {t}", "drop table {t}", "update {t} as x set n = 1",
    "create table x as select * from {t}", "select {c} /* {t} */ from {t} -- {t}",
    "insert into {t} (n) values (1) on conflict do update set n = (select n from {t})",
])  # fmt: skip


@st.composite
def statements(draw: st.DrawFn) -> str:
    text = draw(_SHAPE).replace("{c}", draw(_CELL))
    while "{t}" in text or "{}" in text:
        text = text.replace("{t}", draw(_NAME), 1).replace("{}", draw(_NAME), 1)
    return text


def prepared(sql: str, tables: Iterable[str]) -> set[tuple[str, str]] | None:
    """What SQLite says that a statement reads and writes as it prepares it. None: it does not."""
    connection = sqlite3.connect(":memory:")
    for table in tables:
        connection.execute(f"create table {table} (n integer primary key)")
    seen: set[tuple[str, str]] = set()
    writes = {
        sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_CREATE_TABLE,
    }  # fmt: skip

    def authorize(action: int, first: str | None, *_: str | None) -> int:
        if first and action in {sqlite3.SQLITE_READ, *writes}:
            seen.add(("write" if action in writes else "read", first.lower()))
        return sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)
    try:
        connection.execute(f"explain {sql}")
    except sqlite3.Error:
        return None
    finally:
        connection.close()
    return seen


def reached_in_sqlite(sql: str) -> set[tuple[str, str]]:
    """It also gives the names of `WITH` queries as read: a table is one without which the statement
    cannot be prepared."""
    seen = prepared(sql, TABLES) or set()
    return {
        (verb, table)
        for verb, table in seen
        if table in TABLES and prepared(sql, set(TABLES) - {table}) is None
    }


@settings(max_examples=800, deadline=None)
@given(statements())
def test_what_sqlite_reaches_is_seen(sql: str) -> None:
    """Never less than the database itself says, for whatever is not refused outright."""
    access = read_sql(sql)
    if access.problem:
        return
    ours = {("read", name[-1].text.lower()) for name in access.reads}
    ours |= {("write", name[-1].text.lower()) for name in access.writes}
    for verb, table in reached_in_sqlite(sql):
        written = ("write", table) in ours
        assert (verb, table) in ours or (verb == "read" and written), sql


@settings(max_examples=300, deadline=None)
@given(statements())
def test_the_denied_table_is_never_reached(sql: str) -> None:
    if not Tables(
        ScopeRule(kind="tables", allow=("*", "*.*"), write=("*",), deny=("secret",))
    ).judge(sql):
        assert "secret" not in {table for _, table in reached_in_sqlite(sql)}


@settings(max_examples=300, deadline=None)
@given(statements())
def test_dialects_agree_or_the_union_counts(sql: str) -> None:
    whole = read_sql(sql + " -- x")  # a comment: every dialect is asked
    for dialect in filter(None, DIALECTS):
        one = read_sql(sql, dialect)
        if not one.problem and not whole.problem:
            assert one.writes <= whole.writes
            assert one.reads <= whole.reads


SQL_WORDS = st.sampled_from([
    "select", "from", "secret", "orders", "(", ")", ",", "'", '"', "`", "[", "]", "--", "/*", "*/",
    ";", "\\", "#", "$$", "with", "as", "union", "*", "1", "insert into", "update", "set", "=", "a",
    ".", "case when", "end", "in", "exists", "join", "on", "::", "values", "drop table", "\n", "@",
    "{", "}", "x'", "E'", "U&'", "lateral", "using", "delete from", "create table", "into", "?",
    ":x",
])  # fmt: skip


@settings(max_examples=700, deadline=2000)
@given(st.lists(SQL_WORDS, max_size=25).map(" ".join) | st.text(max_size=80))
def test_never_crashes(sql: str) -> None:
    assert isinstance(SCOPE.judge({"sql": sql}), str)
