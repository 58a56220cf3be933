"""The JSON schemas of tools' arguments, as files have them."""

from collections.abc import Iterator, Mapping
from typing import Any

from checkrein.analysis.following import Schemas


def by_schema(said: Any) -> dict[str, dict[str, Any]]:
    """By the name of a tool schema (`""` when there is just one), the schemas of tools' arguments.

    Known forms: `{schema: {tool: {parameters}}}`, `{tool: {parameters}}`, and the list of tools as
    providers' APIs take it. Raises ValueError for any other.
    """
    if isinstance(said, list):
        said = {
            tool.get("function", tool).get("name", ""): tool.get("function", tool)
            for tool in said if isinstance(tool, dict)
        }  # fmt: skip
    if not isinstance(said, dict):
        raise ValueError("tools should be a map of names to schemas, or a list of tools")
    tools = {name: parameters_of(tool) for name, tool in said.items()}
    if any(schema is not None for schema in tools.values()):
        return {"": {name: schema for name, schema in tools.items() if schema is not None}}
    return {name: dict(_tools_in(inner)) for name, inner in said.items()}


def _tools_in(said: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tools are sometimes told apart once more, by who calls them."""
    for name, one in said.items() if isinstance(said, dict) else ():
        schema = parameters_of(one)
        if schema is not None:
            yield name, schema
        elif isinstance(one, dict):
            yield from (
                (inner, schema)
                for inner, tool in one.items()
                if (schema := parameters_of(tool)) is not None
            )


def parameters_of(tool: Any) -> dict[str, Any] | None:
    """The schema of a tool's arguments, however its description calls it."""
    if not isinstance(tool, dict):
        return None
    tool = tool.get("function", tool) if isinstance(tool.get("function"), dict) else tool
    for name in ("parameters", "input_schema", "inputSchema"):
        if isinstance(tool.get(name), dict):
            return tool[name]  # type: ignore[no-any-return] # just looked at
    return tool if tool.get("type") == "object" else None


def schema_lookup(found: Mapping[str, Mapping[str, Any]]) -> Schemas:
    """From a run's labels to its tools' schemas."""

    def of(labels: Mapping[str, str]) -> Mapping[str, Any]:
        for name in (labels.get("tool_schema", ""), labels.get("domain", ""), ""):
            if name in found:
                return found[name]
        return {}

    return of
