"""The gateway's port inside a network that has nothing else: bytes go in and out, nothing is read.

Run as a process of the supervisor's, outside the network and outside the program's reach:
`python -I relay.py DESCRIPTOR HOST PORT`, where DESCRIPTOR is a socket that listens inside. It
uses the standard library only, and ends with the supervisor.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys

CHUNK_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One way, to its end; then the other side is told that there is no more."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def serve(listening: socket.socket, host: str, port: int) -> None:
    """Until cancelled."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner, outer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()  # as if nobody listened
            return
        try:
            await asyncio.gather(carry(reader, outer), carry(inner, writer))
        finally:
            outer.close()
            writer.close()

    server = await asyncio.start_server(join, sock=listening, backlog=512)
    async with server:
        await server.serve_forever()


def main(arguments: list[str]) -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening = socket.socket(fileno=int(arguments[0]))
    listening.setblocking(False)
    asyncio.run(serve(listening, arguments[1], int(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
