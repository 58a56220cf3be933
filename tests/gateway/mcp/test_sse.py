from collections.abc import AsyncIterator

import pytest

from checkrein.gateway.mcp import sse
from checkrein.gateway.mcp.rpc import MESSAGE_BYTES_MAX

STREAM = (
    b': hello\r\n\r\nid: 1\r\nevent: message\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'
    b'event: other\ndata: no\n\nretry: 3\ndata:{"b":2}\n\n'
)
WHOLE = [b'{"a":\n1}', b'{"b":2}']


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(*parts: bytes) -> list[bytes]:
    return [data async for data in sse.events(pieces(*parts))]


async def test_events_are_the_same_however_they_are_cut() -> None:
    assert await read(STREAM) == WHOLE
    assert await read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == WHOLE
    for at in range(len(STREAM)):
        assert await read(STREAM[:at], STREAM[at:]) == WHOLE


async def test_what_is_cut_off_is_no_event() -> None:
    for at in range(len(STREAM)):
        found = await read(STREAM[:at])
        assert found == WHOLE[: len(found)], at


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1_000 + b"\n", b"x" * 1_000])
async def test_an_event_without_end_is_given_up(line: bytes) -> None:
    with pytest.raises(sse.TooLarge):
        await read(*([line] * (MESSAGE_BYTES_MAX // 1_000 + 2)))
