"""What a box with a kernel of its own says of itself, asked of a process that has passed the last stage."""

from __future__ import annotations

import os

import msgspec

from immure.errors import BoxLost, SetupFailed
from immure.plan.image import SENTINEL
from immure.runtimes.base import Commands
from immure.runtimes.guest.outer import STEP_S, UnderWay, carrier_request
from immure.runtimes.process.attend import Attendance
from immure.runtimes.process.request import Request

_ATTESTED_BYTES = 256 * 1024


class Attestation(UnderWay):
    """A process that says what it is, and what it may do. Its word is judged elsewhere."""

    def __init__(self, box: Commands, outside: str, *, apart: bool) -> None:
        self._outside, self._apart = outside, apart
        argv = [b"attest", outside.encode(), b"/" + SENTINEL.encode(), *([b"apart"] if apart else [])]
        request = Request(box.launch, argv)
        # The commands' own may be something that is made yet.
        request.workdir = "/"
        # Its time begins once the box stands, which may take a while.
        request.timeout_s, request.output_bytes = None, _ATTESTED_BYTES
        super().__init__(box, request, builtin=True)

    def items(self) -> dict[str, bytes]:
        """What it has said. Raises SetupFailed for a step of the last stage that its kernel can't do, and BoxLost."""
        self.attendance.begin_time(STEP_S)
        seen = self.ended().exit
        if seen is not None and os.WIFSIGNALED(seen.status) and not self._apart:
            # A filter answers one of its attempts so: they are to be made by processes of their own.
            with Attestation(self.box, self._outside, apart=True) as another:
                return another.items()
        said = _output(self.attendance)
        try:
            return msgspec.msgpack.decode(said, type=dict[str, bytes])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BoxLost("the box's attestation can't be read", have=str(error)) from error


def attestation(box: Commands, outside: str) -> Attestation:
    """Has a process of a box begin to say what it is. `outside` is a file that it is to try in vain."""
    return Attestation(box, outside, apart=False)


def outer_opens(outer: Commands, outside: str, user: int = 0) -> bool:
    """The control of what no workload may open: there it is, one wall further out."""
    request = carrier_request(outer.launch, ("files", "read", outside, "0", "64"), user)
    request.output_bytes = 64
    with UnderWay(outer, request, builtin=True) as reading:
        return bool(_output(reading.ended()))


def _output(attendance: Attendance) -> bytes:
    """What has been written in the end. Raises SetupFailed where it can't be done and BoxLost where it did not end."""
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
