"""A socket for senders of events, as what has a trace served makes it."""

from __future__ import annotations

import socket
from pathlib import Path


def listening_at(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.bind(str(path))
        made.listen(4)
    except BaseException:
        made.close()
        raise
    return made
