"""The gateway's own record and log: before anything is written down, what must not be is taken out.

The pact's `redact` works in the recorder itself. What is added here holds whatever the pact says:
keys that the gateway holds stand in no event, and no log line has a secret or personal data.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from checkrein.gateway.known import KnownKeys
from checkrein.policy.redact import Redactor, compile_redaction
from checkrein.sdk import quiet
from checkrein.sdk.place import RecorderStats
from checkrein.sdk.types import Recording

_unpacked = msgspec.msgpack.Decoder()


class CleanRecorder:
    """A recorder into which no key of the gateway's gets."""

    def __init__(self, inner: Recording, known: KnownKeys) -> None:
        self._inner, self._known = inner, known

    @property
    def id(self) -> str:
        return self._inner.id

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int:
        clean = {name: self._clean(name, value) for name, value in fields.items()}
        return self._inner.record(kind, place, step, **clean)

    def stats(self) -> RecorderStats:
        return self._inner.stats()

    def close(self) -> None:
        self._inner.close()

    def _clean(self, name: str, value: Any) -> Any:
        if not value or isinstance(value, int | float):
            return value
        try:
            if isinstance(value, str):
                return self._known.text(value)
            if isinstance(value, msgspec.Raw):
                if not self._known.within(bytes(value)):
                    return value
                value = _unpacked.decode(value)
            return self._known.plain(value)
        except Exception as error:
            quiet.fault(f"cleaning {name}", error)
            return "[redacted:failed]" if isinstance(value, str) else None


class CleanLog(logging.Filter):
    """For a log's handlers: a line, and the traceback below it, without secrets and personal data.
    A line that cannot be looked through says only where it came from."""

    def __init__(self, known: KnownKeys) -> None:
        super().__init__()
        self._known = known
        self._redactor: Redactor = compile_redaction(("secrets", "pii"))

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.msg, record.args = self._clean(record.getMessage()), ()
            if record.exc_info:
                trace = record.exc_text or logging.Formatter().formatException(record.exc_info)
                record.exc_text, record.exc_info = self._clean(trace), None
            elif record.exc_text:
                record.exc_text = self._clean(record.exc_text)
            if record.stack_info:
                record.stack_info = self._clean(record.stack_info)
        except Exception as error:
            record.msg = f"[redacted:failed] {type(error).__name__}"
            record.args, record.exc_info, record.exc_text = (), None, None
        return True

    def _clean(self, text: str) -> str:
        return self._redactor.text(self._known.text(text))


@contextmanager
def clean_logs(known: KnownKeys) -> Iterator[None]:
    """Inside it, every handler of this process writes clean lines."""
    clean = CleanLog(known)
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(clean)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(clean)
