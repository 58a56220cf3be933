"""`checkrein mcp-tools`: tools of MCP servers as they were first seen, and changes to them."""

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.out import CALM, CAUTION, Cell

HEADS = ("SERVER", "TOOL", "STATE", "DIGEST", "DESCRIPTION")
DIGEST_CHARS = 12


@click.group(invoke_without_command=True)
@out.server_options
@click.pass_context
def mcp_tools(ctx: click.Context, url: str, token: str, as_json: bool) -> None:
    """Tools of MCP servers, and changes to them.

    A tool is trusted as it is first seen. One whose description or schema changes afterwards is
    held: agents do not see it and cannot call it, until somebody approves.
    """
    if ctx.invoked_subcommand is None:
        _list(url, token, as_json)


@mcp_tools.command("list")
@out.server_options
def list_tools(url: str, token: str, as_json: bool) -> None:
    """All that were seen; first those that have changed."""
    _list(url, token, as_json)


@mcp_tools.command()
@click.argument("server")
@click.argument("tool")
@click.option("--digest", default="", help="Approve only if it is this very change.")
@out.server_options
def approve(server: str, tool: str, digest: str, url: str, token: str, as_json: bool) -> None:
    """Trust TOOL of SERVER as it is now."""
    with out.asking(url, token) as client:
        found = [
            line
            for line in client.get("/api/v1/mcp-tools")
            if (line["server"], line["tool"]) == (server, tool)
        ]
        whole = next(
            (line["digest"] for line in found if digest and line["digest"].startswith(digest)),
            digest,
        )
        body = {"server": server, "tool": tool, "digest": whole}
        line = client.post("/api/v1/mcp-tools/approve", body)
    if as_json:
        out.say_json(line)
        return
    out.say(f"{clean(server, 100)} {clean(tool, 100)} is trusted as it is now")


def _list(url: str, token: str, as_json: bool) -> None:
    with out.asking(url, token) as client:
        found = client.get("/api/v1/mcp-tools")
    if as_json:
        out.say_json(found)
        return
    if not found:
        out.say("no tools of MCP servers were seen yet")
        return
    rows = []
    for line in found:
        changed = line["state"] == "changed"
        rows.append(
            [
                Cell(clean(line["server"], 40)), Cell(clean(line["tool"], 60)),
                Cell(line["state"], CAUTION if changed else CALM),
                Cell(line["digest"][:DIGEST_CHARS], CALM),
                Cell(clean(" ".join(line["description"].split()), 60), CALM),
            ]
        )  # fmt: skip
    out.table(HEADS, rows)
    for line in found:
        if line["state"] == "changed":
            out.say("")
            out.say(f"{clean(line['server'], 60)} {clean(line['tool'], 60)} is held")
            out.say(f"  changed   {', '.join(clean(one, 40) for one in line['what'])}")
            out.say(f"  before    {clean(line['description'], 500)}")
            out.say(f"  now       {clean(line['now'], 500)}")
            out.say(
                f"  approve   checkrein mcp-tools approve {clean(line['server'], 100)} "
                f"{clean(line['tool'], 100)} --digest {line['digest'][:DIGEST_CHARS]}"
            )
