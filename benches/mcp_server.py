"""A tool server made with the official SDK: by stdio, or by HTTP on the port that is given."""

import asyncio
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer


def build() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("bench", log_level="ERROR")
    filler = "x" * 990

    @server.tool(structured_output=False)
    def look_up(note: str, number: int) -> str:
        """Answers with a kilobyte."""
        return f"{number:010d}{filler}"

    return server


if __name__ == "__main__":
    if len(sys.argv) > 1:
        app = build().streamable_http_app()
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
    else:
        asyncio.run(build().run_stdio_async())
