"""What tests of the native guest share."""

from __future__ import annotations

import time
from collections.abc import Callable

from conformance.hosted import begin_face
from immure import Sandbox
from immure.runtimes.guest.box import GuestBox

#: An operation of a root, and a rule of Landlock's for what is not there.
PRIVATE = {
    "op": "private",
    "options": "size=1m,mode=0755",
    "flags": 6,
    "folders": [{"path": "/tmp", "name": "tmp", "mode": 0o1777}, {"path": "/dev/shm", "name": "shm", "mode": 0o1777}],
}

#: Makes a small root of its own, as a machine has one, and starts the guest in it.
NOWHERE = {"path": "/no/such/place", "access": 4}


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def face_of(outer: Sandbox, box: GuestBox) -> Sandbox:
    """The face of a sandbox for a box of our own."""
    face = Sandbox.__new__(Sandbox)
    begin_face(face)
    face._measured = outer._measured
    face._stem = face._box = box
    return face
