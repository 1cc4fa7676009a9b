"""Changes of a box's files, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from immure.engine.file_models import EVENT_HEAD, FileEvent, event_length, read_event
from immure.engine.process import Process
from immure.errors import BoxLost


class Watch:
    """Changes as they come: an iterator, and a context manager that ends it."""

    def __init__(self, process: Process, end: Callable[[], None]) -> None:
        self._process, self._end = process, end
        try:
            # The word that nothing is missed from here on.
            self._next()
        except BaseException:
            process.close()
            raise

    def _next(self) -> FileEvent | None:
        stream = self._process.stdout
        head = stream.read(EVENT_HEAD)
        if len(head) < EVENT_HEAD:
            self._end()
            raise StopIteration
        length = event_length(head)
        path = stream.read(length)
        if len(path) < length:
            raise BoxLost("the box sent an event that was cut", need=f"{length} bytes", have=f"{len(path)}")
        return read_event(head, path)

    def __iter__(self) -> Iterator[FileEvent]:
        return self

    def __next__(self) -> FileEvent:
        while True:
            event = self._next()
            if event is not None:
                return event

    def abandon(self) -> None:
        """Ends it under another thread that waits for the next change."""
        self._process.kill()

    def close(self) -> None:
        """Ends it."""
        self._process.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
