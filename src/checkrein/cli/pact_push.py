"""`checkrein pact push`: a file, in force where agents run."""

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import CAUTION, Cell
from checkrein.policy.pact import PactError
from checkrein.policy.pact_text import parse
from checkrein.sdk.config import pact_text


@click.command()
@click.argument("file")
@click.option("--agent", default="", help="Whose pact it is (default: the name in `pact:`).")
@click.option("--environment", default="development", show_default=True, help="Where it holds.")
@click.option(
    "--stage", type=click.Choice(("draft", "shadow", "enforce")), default="enforce",
    show_default=True, help="draft decides nothing, shadow records and lets pass.",
)  # fmt: skip
@click.option("--reason", default="", help="Why, for those who read the log.")
@out.server_options
def push(
    file: str, agent: str, environment: str, stage: str, reason: str, url: str, token: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Store FILE as a version of an agent's pact, and bring it to every process that enforces it,
    runs under way included.

    The agent `default` stands for all that have none of their own, and every pact extends it that
    names no other. staging and production take drafts only; the rest comes by promotion.
    """
    try:
        text = pact_text(file)
        entries = parse(text, file).entries()
        agent = agent or entries["pact"][1].text()
    except PactError as error:
        out.fail(str(error), 1)
    except KeyError:
        out.fail(f"{file}: `pact` is missing, and with it the agent's name; or give --agent", 1)
    except (OSError, ValueError) as error:
        out.fail(f"{file}: {getattr(error, 'strerror', None) or error}")
    with out.asking(url, token) as client:
        line = client.put(
            f"/api/v1/pacts/{segment(agent)}",
            {"text": text, "environment": environment, "stage": stage, "reason": reason,
             "source": file},
        )  # fmt: skip
    if as_json:
        out.say_json(line)
        return
    words = {
        "draft": "is stored as a draft of",
        "shadow": "is watched beside",
        "enforce": "holds for",
    }
    out.say(f"version {line['version']} {words[stage]} {clean(agent, 200)} in {clean(environment)}")
    if stage != "draft" and line["processes"]:
        out.say(
            f"brought to {line['processes']} processes; `checkrein pact list` tells where it holds"
        )
    if line["trouble"]:
        out.styled([Cell(clean(line["trouble"], 1000), CAUTION)])
