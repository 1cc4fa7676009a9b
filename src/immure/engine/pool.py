"""Boxes that are ready before anybody asks for one."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from time import monotonic
from typing import Any

from msgspec import Struct

from immure.engine.ownership import check_owner
from immure.engine.sandbox import Sandbox
from immure.engine.snapshot import Snapshot
from immure.engine.stdio import captured
from immure.errors import BoxError, BoxLost, SpecError
from immure.spec.models import SandboxSpec

MOST = 1000
#: A box that was just claimed has the processor for itself, unless the pool runs low.
_LET_IT_WORK_S = 0.005
_RETRY_S = 1.0
_WARMING_S = 10.0


class PoolStats(Struct, frozen=True):
    """Counts of a pool: boxes that are ready, that were made, claimed, claimed when none was ready, and found dead."""

    ready: int
    made: int
    claimed: int
    missed: int
    dead: int


class PooledSandbox(Sandbox):
    """A box of a pool. Closing it is no wait: the pool ends it, and makes another one in its place."""

    _pool: Pool

    def close(self) -> None:
        """Gives it to the pool, which ends it. No box is ever used twice."""
        if self._owner != os.getpid() or self._retired:
            return
        self._retired = True
        self._pool.retire(self)

    _retired = False

    def end(self) -> None:
        """Ends it now, and waits until it is gone."""
        super().close()

    def warm(self) -> None:
        """A kernel of the box's own is slow at its first command: what programs share is read then. So that is ours."""
        if not self._launch.carrier:
            return
        request = self.request(["true"], workdir="/", timeout_s=_WARMING_S)
        try:
            self.carry_out(request, captured(None))
        except BoxError:
            # An image may have no such program, and a box that has ended is found when it is claimed.
            pass

    def alive(self) -> bool:
        """Whether it can be used."""
        return self._box.alive()

    def _check_usable(self) -> None:
        super()._check_usable()
        if self._retired:
            raise BoxLost("the box is closed", need="a box in use", hint="claim another one from the pool")


class Pool:
    """Up to `size` boxes of one spec, ready to be claimed. A context manager: leaving it ends all of its boxes.

    The other keywords are those of `Sandbox`; with a `snapshot` each box goes on from there. Boxes are made in the
    background, and ended there; each has one user and a network namespace of its own. Raises as `Sandbox` where the
    first box can't be made. Threads may share it.
    """

    size: int

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        *,
        size: int = 4,
        preset: str | None = None,
        name: str = "immure",
        snapshot: Snapshot | None = None,
        **keywords: Any,
    ) -> None:
        if snapshot is not None and (spec is not None or preset is not None or keywords):
            raise SpecError("a snapshot says what its boxes are", path="snapshot", need="no spec, preset or keywords")
        self._snapshot = snapshot
        if not 1 <= size <= MOST:
            raise SpecError("no such size of a pool", path="size", need=f"1 to {MOST}", have=str(size))
        self.size = size
        self._call = {"spec": spec, "preset": preset, "name": name, **keywords}
        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._ready: deque[PooledSandbox] = deque()
        self._used: deque[PooledSandbox] = deque()
        #: Claimed ones; one that its user forgets ends by itself.
        self._out: weakref.WeakSet[PooledSandbox] = weakref.WeakSet()
        self._closed = False
        self._claimed_at = 0.0
        self._made = self._claimed = self._missed = self._dead = 0
        # Here, so that what is wrong with the spec or the host is told at once.
        self._ready.append(self._make())
        self._thread = threading.Thread(target=self._work, name="immure-pool", daemon=True)
        self._thread.start()

    def claim(self) -> PooledSandbox:
        """A box that nobody has used. Where none is ready, it is made now. Raises as `Sandbox`."""
        return self.claim_ready() or self._claimed_now()

    def claim_ready(self) -> PooledSandbox | None:
        """A box that is ready, or None. Never waits."""
        check_owner(self._owner, "pool", "make a Pool after the fork")
        while True:
            with self._changed:
                if self._closed:
                    raise BoxLost("the pool is closed", need="a pool in use", hint="make a new Pool")
                box = self._ready.popleft() if self._ready else None
                self._claimed += box is not None
                self._claimed_at = monotonic()
                if box is not None:
                    self._out.add(box)
                self._changed.notify()
            if box is None or box.alive():
                return box
            # Its spawner was killed, say.
            with self._changed:
                self._dead += 1
                self._claimed -= 1
            box.close()

    def _claimed_now(self) -> PooledSandbox:
        box = self._make()
        with self._changed:
            self._claimed += 1
            self._missed += 1
            self._out.add(box)
        return box

    def stats(self) -> PoolStats:
        """What it has done until now, and how many boxes are ready."""
        with self._changed:
            return PoolStats(len(self._ready), self._made, self._claimed, self._missed, self._dead)

    def retire(self, box: PooledSandbox) -> None:
        """Takes a box back, to end it."""
        with self._changed:
            self._out.discard(box)
            if not self._closed:
                self._used.append(box)
                self._changed.notify()
                return
        box.end()

    def close(self) -> None:
        """Ends every box, those that were claimed too, and waits until they are gone. May be called again."""
        if self._owner != os.getpid():
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            left = [*self._ready, *self._used, *self._out]
            self._ready.clear()
            self._used.clear()
            self._out.clear()
        for box in left:
            box.end()

    def _make(self) -> PooledSandbox:
        if self._snapshot is not None:
            box = PooledSandbox.restore(self._snapshot)
        else:
            box = PooledSandbox(**self._call)  # type: ignore[arg-type]
        box.warm()
        box._pool = self  # pyright: ignore[reportPrivateUsage]
        with self._changed:
            self._made += 1
        return box

    def _work(self) -> None:
        retry_at = 0.0
        while True:
            with self._changed:
                wait_s = self._idle_s(retry_at)
                if self._closed:
                    return
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                used = self._used.popleft() if self._used else None
            if used is not None:
                used.end()
                continue
            try:
                box = self._make()
            except Exception:
                # Whoever claims one tries again, and is told: of a host that refuses, or of descriptors that ran out.
                retry_at = monotonic() + _RETRY_S
                continue
            with self._changed:
                self._ready.append(box)

    def _idle_s(self, retry_at: float) -> float | None:
        """How long there is nothing to do: None until something changes, 0 where there is something now."""
        if len(self._ready) >= self.size and not self._used:
            return None
        soonest = self._claimed_at + _LET_IT_WORK_S
        if len(self._ready) * 2 < self.size:
            soonest = 0.0
        if not self._used:
            soonest = max(soonest, retry_at)
        return max(0.0, soonest - monotonic())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Pool {len(self._ready)} of {self.size} ready>"
