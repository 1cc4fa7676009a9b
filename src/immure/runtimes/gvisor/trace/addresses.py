"""Socket addresses as the kernel has them, as text: `struct sockaddr` of any family."""

from __future__ import annotations

import socket


def address_text(value: bytes) -> str:
    """`unix:PATH`, with `@` for an abstract one's first byte, `ADDRESS:PORT`, or the bytes in hexadecimal. What a path
    holds is whoever's who chose it: nothing is escaped, and bytes that are no UTF-8 are lone surrogates.
    """
    family = int.from_bytes(value[:2], "little")
    if family == socket.AF_UNIX:
        path = value[2:]
        name = b"@" + path[1:].partition(b"\0")[0] if path[:1] == b"\0" else path.partition(b"\0")[0]
        return "unix:" + name.decode(errors="surrogateescape")
    port = int.from_bytes(value[2:4], "big")
    if family == socket.AF_INET and len(value) >= 8:
        return f"{socket.inet_ntop(family, value[4:8])}:{port}"
    if family == socket.AF_INET6 and len(value) >= 24:
        return f"[{socket.inet_ntop(family, value[8:24])}]:{port}"
    return value.hex()
