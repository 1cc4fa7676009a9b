"""Records what a Sentry sends, as root: the first frame of each trace point, for tests/unit/trace_frames/NAME.txt.

PYTHONPATH=src python tools/record_trace_frames.py RUNSC NAME
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "tests"))

from immure.policy.seccomp.abi import ABIS  # noqa: E402
from immure.policy.seccomp.syscalls import name_of  # noqa: E402
from immure.runtimes.gvisor.trace import choose_points  # noqa: E402
from immure.runtimes.gvisor.trace.events import read_event  # noqa: E402
from integration.sentries import Sentry, offer_of  # noqa: E402

#: All that is no bare call, and one that is.
POINTS = ("container/*", "sentry/*", "syscall/*/*", "syscall/sysno/110/*")


def record(runsc: str) -> list[bytes]:
    """Every frame after the handshake."""
    offer = offer_of(runsc)
    points = choose_points(POINTS, offer)
    fields = {field for name in points for field in offer.points[name].optional_fields}
    context = {field for name in points for field in offer.points[name].context_fields}
    frames: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        with Sentry(runsc, Path(folder)) as sentry:
            listening.bind(str(sentry.socket))
            listening.listen()
            thread = threading.Thread(target=_hear, args=(listening, frames), daemon=True)
            thread.start()
            sentry.run(["every"], points, optional=sorted(fields), context=sorted(context))
        thread.join(10)
    return frames


def _hear(listening: socket.socket, frames: list[bytes]) -> None:
    connection = listening.accept()[0]
    with connection:
        print("handshake:", connection.recv(1 << 16).hex(), file=sys.stderr)
        connection.send(b"\x08\x01")
        while frame := connection.recv(1 << 18):
            frames.append(frame)


def main(runsc: str, name: str) -> None:
    """Writes the frames, one a line: the point, and the bytes in hexadecimal."""
    first: dict[str, bytes] = {}
    frames = record(runsc)
    for frame in frames:
        kind = int.from_bytes(frame[2:4], "little")
        event = read_event(kind, frame[8:], lambda number: name_of(ABIS["x86_64"], number))
        key = event.point + (" denied" if event.denied else "")
        first.setdefault(key, frame)
    target = HERE / "tests" / "unit" / "trace_frames" / f"{name}.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text("".join(f"{key} {frame.hex()}\n" for key, frame in sorted(first.items())))
    print(f"{len(first)} points of {len(frames)} frames", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
