"""The role `api`: HTTP, server-sent events, sessions, metrics."""

from checkrein.server.api.role import run

__all__ = ["run"]
