"""Boxes that harm what they can while twenty others work: these see nothing of it, and nothing of it is left.

For how many seconds, all kinds together, says IMMURE_CHAOS_S.
"""

from __future__ import annotations

import gc
import os
import struct
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from immure import BoxLost, ExecFailed, Sandbox, run
from immure.engine.prepare import host_facts

from . import hostile
from .command_line import python
from .neighbours import Neighbours
from .processes import eventually
from .traces import traces

pytestmark = [pytest.mark.rootless, pytest.mark.slow, pytest.mark.timeout(180)]

#: A plain user's boxes are no others, so that less has to do.
SECONDS = float(os.environ.get("IMMURE_CHAOS_S", "60" if os.geteuid() == 0 else "12"))
PROGRAM = Path(hostile.__file__).read_text()
#: What is done at least in a second by each, on a machine that is slow and busy.
LEAST = {"flood": 1 << 20, "write_nonsense": 200, "kill": 200, "close": 500, "fork": 20}
#: Each alone, and then all at once.
ROUNDS = [*([kind] for kind in hostile.KINDS), list(hostile.KINDS)]
#: Where no cgroup bounds its processes, one of each kind is enough.
USERS = (1000, 0) if os.geteuid() == 0 else (1000,)
#: A hostile program is ended and begun anew so often.
TURN_S = 2.0


class Hostile:
    """One box with a hostile program. It is begun anew when it has ended."""

    def __init__(self, kind: str, user: int, folder: Path) -> None:
        self.kind = kind
        self.counters = folder / f"{kind}-{user}"
        self.failed: list[str] = []
        limits = {"pids": 64, "memory_mib": 512} if host_facts().cgroups else {}
        self._make_box = lambda: Sandbox(user=user, mounts=[(folder, "/work", "rw")], **limits)
        self._box = self._make_box()
        self._argv = python(PROGRAM, kind, f"/work/{self.counters.name}", "60")
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._over = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def _go_on(self) -> None:
        while not self._over.is_set():
            try:
                self._box.exec(self._argv, timeout_s=TURN_S)
            except ExecFailed:
                # It has left no room for another process.
                time.sleep(0.1)
            except BoxLost as error:
                # Where no cgroup bounds its processes it may be too busy to be ended, but with its box.
                if host_facts().cgroups:
                    self.failed.append(f"{self.counters.name}: {error!r}")
                    return
                self._box.close()
                self._box = self._make_box()
            except Exception as error:
                self.failed.append(f"{self.counters.name}: {error!r}")
                return

    def stop(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        if self._thread.is_alive():
            self.failed.append(f"{self.counters.name}: its command does not end")
        self._box.close()

    def done(self) -> tuple[int, float]:
        """How much it did, and how many seconds lie between its first deed and its last."""
        count, first, last = struct.unpack("QQQ", self.counters.read_bytes())
        return count, (last - first) / 1e9


def traces_at_rest() -> Counter[str]:
    """Of boxes that were closed a moment ago a spawner may hold something yet."""
    seen: Counter[str] = Counter()
    while (now := traces()) != seen:
        seen = now
        time.sleep(0.1)
    return seen


def left_of(before: Counter[str]) -> tuple[dict[str, int], dict[str, int]]:
    """What there is that was not, and what is not any more."""
    gc.collect()
    eventually(lambda: traces() == before, within=10)
    after = traces()
    return dict(after - before), dict(before - after)


@pytest.mark.parametrize("kinds", ROUNDS, ids=lambda kinds: kinds[0] if len(kinds) == 1 else "all")
def test_neighbours_see_nothing_and_nothing_is_left(kinds: list[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert run(["true"]).ok
    # What boxes of one plan share is made with the first.
    for user in USERS:
        Hostile(kinds[0], user, tmp_path).stop()
    before = traces_at_rest()
    share = SECONDS / len(ROUNDS)
    neighbours = Neighbours()
    hostiles = [Hostile(kind, user, tmp_path) for kind in kinds for user in USERS]
    try:
        for one in hostiles:
            one.start()
        neighbours.start()
        time.sleep(share)
        # Where no cgroup bounds its processes, the machine is so busy that some take longer.
        assert eventually(lambda: len(neighbours.answers) == Neighbours.COUNT, within=60), "each gets an answer"
    finally:
        stuck = neighbours.stop()
        for one in hostiles:
            one.stop()
    assert neighbours.wrong == []
    assert stuck == []
    assert [failure for one in hostiles for failure in one.failed] == []
    # The controls.
    for one in hostiles:
        count, between_s = one.done()
        if len(kinds) == 1:
            assert count > LEAST[one.kind] * share * 0.5, (one.counters.name, count)
            assert between_s > share * 0.5, (one.counters.name, between_s)
        else:
            # They take the processors from each other too.
            assert count > LEAST[one.kind], (one.counters.name, count)
    assert left_of(before) == ({}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.counters.name for one in hostiles)
