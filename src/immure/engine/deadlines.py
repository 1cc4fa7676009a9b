"""Deadlines of commands that nobody waits for at the moment: one thread for all of them, while there are any."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from immure.runtimes.process.course import LATE_S, Course

#: Called when the time has come; gives in how many seconds to look again, or None.
Due = Callable[[], "float | None"]

_changed = threading.Condition()
_heap: list[tuple[float, int, weakref.WeakMethod[Due]]] = []
_counter = itertools.count()
#: With so many it is looked which of them are for nobody any more: most commands end before their time.
_FEW = 1024
_many = _FEW
_thread: threading.Thread | None = None


def _after_fork() -> None:
    """The parent's commands are not the child's, and the lock may be held by a thread that the child does not have."""
    global _changed
    _changed = threading.Condition()
    _heap.clear()


os.register_at_fork(after_in_child=_after_fork)


def watch(at: float, due: Any) -> None:
    """Has the method `due` called at `at` (of time.monotonic), unless its object is gone by then."""
    global _thread
    with _changed:
        if len(_heap) >= _many:
            _forget()
        heapq.heappush(_heap, (at, next(_counter), weakref.WeakMethod(due)))
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="immure-deadlines", daemon=True)
            _thread.start()
        _changed.notify()


def _forget() -> None:
    global _many
    _heap[:] = [one for one in _heap if one[2]() is not None]
    heapq.heapify(_heap)
    _many = max(_FEW, 2 * len(_heap))


def watch_over(attendance: Course, timeout_s: float | None) -> None:
    """Has a command ended that is under way though its time is over, and whose attendant does not see to it."""
    if timeout_s is not None:
        watch(monotonic() + timeout_s + LATE_S, attendance.overdue)


def _run() -> None:
    global _thread
    while True:
        with _changed:
            if not _heap:
                _thread = None
                return
            wait_s = _heap[0][0] - monotonic()
            if wait_s > 0:
                _changed.wait(wait_s)
                continue
            _, _, reference = heapq.heappop(_heap)
        due = reference()
        again = due() if due is not None else None
        if again is not None:
            watch(monotonic() + again, due)
        # It is not to live for this.
        del due
