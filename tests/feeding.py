"""A writer beside the reader of a command."""

from __future__ import annotations

import threading

from immure import Process

_STEP_BYTES = 50_000


def feed(process: Process, content: bytes) -> threading.Thread:
    """Writes all of it to a command's input, and ends that, while the caller does something else."""

    def write() -> None:
        assert process.stdin is not None
        view = memoryview(content)
        while view:
            view = view[process.stdin.write(view[:_STEP_BYTES]) :]
        process.stdin.close()

    writer = threading.Thread(target=write)
    writer.start()
    return writer
