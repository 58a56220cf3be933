"""What the HTTP surface answers when it cannot do what was asked: `{error, detail, do}`.

Problem
    BadRequest       400  the request itself is wrong; the detail names the place
    Unauthorised     401  no token, or not ours
    Forbidden        403  from a page or a name that may not ask
    NotThere         404  nothing of that name
    Ambiguous        409  several things of that name; the detail lists them
    Refused          409  it cannot be done any more, or not by this caller
    TooLarge         413  over a limit, which the detail states
    Unready          503  a part that is needed does not answer
"""

import msgspec


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """`error` is a stable word, `detail` says what happened, `do` what the caller can do now."""

    error: str
    detail: str
    do: str


class Problem(Exception):
    """Anything the caller is told instead of an answer."""

    status = 500
    error = "internal"

    def __init__(self, detail: str, do: str, error: str = "") -> None:
        super().__init__(detail)
        self.body = ProblemBody(error=error or self.error, detail=detail, do=do)


class BadRequest(Problem):
    status, error = 400, "bad_request"


class Unauthorised(Problem):
    status, error = 401, "unauthorised"


class Forbidden(Problem):
    status, error = 403, "forbidden"


class NotThere(Problem):
    status, error = 404, "not_found"


class Ambiguous(Problem):
    status, error = 409, "ambiguous"


class Refused(Problem):
    status, error = 409, "refused"


class TooLarge(Problem):
    status, error = 413, "too_large"


class Unready(Problem):
    status, error = 503, "unready"
