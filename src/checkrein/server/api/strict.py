"""Strict JSON as the API asks for it: `events.strict`, with the API's bounds and errors."""

from checkrein.events import strict
from checkrein.server.api.problems import BadRequest, TooLarge

BODY_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 32
_DO = "Send one JSON object, each key once, as described at /api/openapi.json."


def check_json(body: bytes) -> None:
    """Raises BadRequest or TooLarge, naming the place, unless the body is strict JSON."""
    if len(body) > BODY_BYTES_MAX:
        raise TooLarge(
            f"the body has {len(body)} bytes; at most {BODY_BYTES_MAX} are taken",
            "Send less at once.",
        )
    try:
        strict.read_with_care(body, DEPTH_MAX)
    except strict.NotStrict as error:
        raise BadRequest(str(error), _DO) from error
