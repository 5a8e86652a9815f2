"""Requests byte for byte, as no client library would send them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.web.conftest import Server


class Reply(NamedTuple):
    """One answer as it came; `closed` if the server then hung up."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool


def connect(server: Server) -> socket.socket:
    """A connection with a time limit: without one a broken test would never end."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def say(server: Server, data: bytes) -> Reply:
    """Send these bytes on a new connection; returns the answer."""
    with connect(server) as line:
        line.sendall(data)
        return answer(line, data[:4] == b"HEAD")


def answer(line: socket.socket, is_head: bool = False) -> Reply:
    """The next answer on a connection, with status 0 if the server hung up without one."""
    got = b""
    while b"\r\n\r\n" not in got:
        block = received(line)
        if not block:
            return Reply(0, {}, got, closed=True)
        got += block
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines[1:])}
    wanted = 0 if is_head else int(headers.get("content-length", "0"))
    while len(body) < wanted and (block := received(line)):
        body += block
    closed = headers.get("connection") == "close" and not received(line)
    return Reply(int(lines[0].split(" ")[1]), headers, body, closed)


def received(line: socket.socket) -> bytes:
    """The next bytes, none at the end of the connection, which may be a reset."""
    try:
        return line.recv(65536)
    except ConnectionResetError:
        return b""


def wait_for_the_end(line: socket.socket) -> bytes:
    """Read until the server hangs up; returns the bytes."""
    got = b""
    while block := received(line):
        got += block
    return got
