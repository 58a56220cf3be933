"""`checkrein schema`: the JSON Schema of events."""

import click

from checkrein.cli import out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same: it is JSON in any case.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of all event types."""
    from checkrein.events.schema import json_schema

    out.say_json(json_schema())
