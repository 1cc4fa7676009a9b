"""What a box with a kernel of its own says of itself, asked of a process that has passed the last stage."""

from __future__ import annotations

import os

import msgspec

from immure.errors import BoxLost, SetupFailed
from immure.plan.image import SENTINEL
from immure.runtimes.base import Commands
from immure.runtimes.guest.outer import STEP_S, UnderWay, carrier_request
from immure.runtimes.process.request import Request

_ATTESTED_BYTES = 256 * 1024


def attestation(box: Commands, outside: str) -> UnderWay:
    """Has a process say what it is. `outside` is a file that it is to try in vain. Its word is judged elsewhere."""
    request = Request(box.launch, [b"attest", outside.encode(), b"/" + SENTINEL.encode()])
    # The commands' own may be something that is made yet.
    request.workdir = "/"
    return _operation(box, request, _ATTESTED_BYTES)


def attested(attesting: UnderWay) -> dict[str, bytes]:
    """What it has said. Raises SetupFailed for a step of the last stage that its kernel can't do, and BoxLost."""
    said = _output(attesting)
    try:
        return msgspec.msgpack.decode(said, type=dict[str, bytes])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BoxLost("the box's attestation can't be read", have=str(error)) from error


def outer_opens(outer: Commands, outside: str, user: int = 0) -> bool:
    """The control of what no workload may open: there it is, one wall further out."""
    request = carrier_request(outer.launch, ("files", "read", outside, "0", "64"), user)
    with _operation(outer, request, 64) as reading:
        return bool(_output(reading))


def _operation(box: Commands, request: Request, most: int) -> UnderWay:
    """An operation of the native program, of which `most` bytes are taken."""
    request.timeout_s, request.output_bytes = STEP_S, most
    return UnderWay(box, request, builtin=True)


def _output(operation: UnderWay) -> bytes:
    """What it has written in the end. Raises SetupFailed where it can't be done and BoxLost where it does not end."""
    attendance = operation.ended()
    seen = attendance.exit
    if seen is not None and seen.errno:
        raise SetupFailed(
            f"the box's kernel can't do what its commands need: {seen.step}",
            step=seen.step,
            errno=seen.errno,
            have=os.strerror(seen.errno),
            hint="runsc of 2024 keeps no capabilities for other users than 0: use a newer one"
            if seen.step == "capabilities"
            else None,
        )
    if seen is None or seen.status or attendance.timed_out or attendance.flooded:
        raise BoxLost("the box does not attest itself", have="no answer" if seen is None else f"status {seen.status}")
    return bytes(attendance.sinks[0].data)
