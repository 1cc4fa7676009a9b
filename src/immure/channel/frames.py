"""Every kind of frame, and its bytes: `u32 length` (little-endian), then a MessagePack array that begins with the kind.

docs/channel.md says what each means; `native/src/channel/frame.rs` has the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from immure.channel.limits import CHUNK_BYTES, MAGIC, VERSION
from immure.errors import ChannelError

U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
#: MessagePack has no larger ones.
U64 = Annotated[int, Meta(ge=0)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
#: A number that is not 0.
Count = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
#: Some of what goes through a stream: never nothing, and never more than a frame may carry.
Chunk = Annotated[bytes, Meta(min_length=1, max_length=CHUNK_BYTES)]
#: Standard output or standard error.
Output = Literal[1, 2]

#: EXEC: standard input is the guest's own null device, and none will come.
NO_INPUT = 1
#: EXEC: outputs have no end before the exit.
HOLD = 2
#: EXEC: STARTED comes as soon as the program runs.
TELL = 4
#: EXEC: all three streams are one terminal of the command's own.
TERMINAL = 8
#: EXEC: an operation of the native program, of the name and arguments of a command.
BUILTIN = 16


class Frame(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One frame. Each kind has its number as tag."""


class Hello(Frame, frozen=True, tag=0):
    """Both ways, first of all: what the sender is, and what it takes."""

    magic: str
    version: U32
    frame_bytes: U32
    streams: U32
    window_bytes: U32


class Configure(Frame, frozen=True, tag=1):
    """Host to guest: the last stage of every command, MessagePack of its own."""

    configuration: bytes


class Exec(Frame, frozen=True, tag=2):
    """A command, as the process runtime's stem reads it. Columns and rows are those of a terminal."""

    stream: Count
    flags: U16
    columns: U16
    rows: U16
    command: bytes


class Input(Frame, frozen=True, tag=3):
    """For standard input."""

    stream: Count
    data: Chunk


class InputEnd(Frame, frozen=True, tag=4):
    """The end of standard input; a terminal is hung up."""

    stream: Count


class OutputCredit(Frame, frozen=True, tag=5):
    """There is room for so much more of an output."""

    stream: Count
    output: Output
    bytes: Count


class OutputClose(Frame, frozen=True, tag=6):
    """Nobody reads it any more."""

    stream: Count
    output: Output


class Signal(Frame, frozen=True, tag=7):
    """For the command, or its process group."""

    stream: Count
    signal: U16
    group: bool


class Resize(Frame, frozen=True, tag=8):
    """The terminal's size is another one."""

    stream: Count
    columns: U16
    rows: U16


class Pause(Frame, frozen=True, tag=9):
    """Everything is to stop; PAUSED says when it has."""

    number: U32


class Resume(Frame, frozen=True, tag=10):
    """Everything is to go on."""


class Ping(Frame, frozen=True, tag=11):
    """PONG answers it."""

    number: U32


class Shutdown(Frame, frozen=True, tag=12):
    """Everything is to end; BYE is the last word."""


class Park(Frame, frozen=True, tag=13):
    """Nothing more is to be said until UNPARK, or until another host says HELLO; PARKED is the last word."""


class Unpark(Frame, frozen=True, tag=14):
    """It goes on where it was."""


class Adopt(Frame, frozen=True, tag=15):
    """From another host, in place of CONFIGURE: STANDING comes for each command, then CONFIGURED.

    `moment` is MessagePack of its own: what the guest is to know of the world that it wakes up in; empty for nothing.
    """

    moment: bytes


class Configured(Frame, frozen=True, tag=64):
    """Guest to host: commands can be asked for. What the file outside Landlock's rules answered, before and after."""

    sentinel_before: I32 | None
    sentinel_after: I32 | None


class Started(Frame, frozen=True, tag=65):
    """The program runs."""

    stream: Count


class OutputData(Frame, frozen=True, tag=66):
    """What a command has written."""

    stream: Count
    output: Output
    data: Chunk


class OutputEnd(Frame, frozen=True, tag=67):
    """Nothing more will come of it."""

    stream: Count
    output: Output


class InputCredit(Frame, frozen=True, tag=68):
    """There is room for so much more of standard input."""

    stream: Count
    bytes: Count


class InputClosed(Frame, frozen=True, tag=69):
    """The command reads no more."""

    stream: Count


class Exited(Frame, frozen=True, tag=70):
    """The command's end; an `errno` and a step where it never started.

    `draining` are the outputs (bits: 1 and 2) of which something that was written before it is still to come.
    """

    stream: Count
    status: I32
    errno: U16
    step: U16
    cpu_us: U64
    memory_peak_kib: U64
    draining: U16


class Paused(Frame, frozen=True, tag=71):
    """Everything has stopped."""

    number: U32


class Pong(Frame, frozen=True, tag=72):
    """The answer to a PING."""

    number: U32


class Fault(Frame, frozen=True, tag=73):
    """What went wrong in the guest, which ends: the step, its object, the kernel's answer."""

    step: str
    object: str
    errno: U16


class Bye(Frame, frozen=True, tag=74):
    """Everything has ended. Nothing follows."""


class OutputDrained(Frame, frozen=True, tag=75):
    """All that was written before the command's end has come; the end of the output says so too."""

    stream: Count
    output: Output


class Parked(Frame, frozen=True, tag=76):
    """Nothing more is said."""


class Standing(Frame, frozen=True, tag=77):
    """A command that another host has asked for: outputs (bits: 1 and 2) that are not at their end, and whether it has
    ended already. `input_room` is what may be sent to it, 0 where it takes no input.
    """

    stream: Count
    flags: U16
    outputs: U16
    input_room: U32
    exited: bool


FromHost = (
    Hello
    | Configure
    | Exec
    | Input
    | InputEnd
    | OutputCredit
    | OutputClose
    | Signal
    | Resize
    | Pause
    | Resume
    | Ping
    | Shutdown
    | Park
    | Unpark
    | Adopt
)
FromGuest = (
    Hello
    | Configured
    | Started
    | OutputData
    | OutputEnd
    | InputCredit
    | InputClosed
    | Exited
    | Paused
    | Pong
    | Fault
    | Bye
    | OutputDrained
    | Parked
    | Standing
)
KINDS: dict[int, type[Frame]] = {cast("int", kind.__struct_config__.tag): kind for kind in Frame.__subclasses__()}
GUEST_KINDS = {number: kind for number, kind in KINDS.items() if number in (0, *range(64, 128))}


class _AnyHello(Struct, frozen=True, array_like=True, tag=0):
    """What a hello of any version begins with."""

    magic: str
    version: int


#: Text that is none has an error of its own.
_NO_FRAME = (msgspec.DecodeError, UnicodeDecodeError)

_encoder = msgspec.msgpack.Encoder()
_number: msgspec.msgpack.Decoder[U32] = msgspec.msgpack.Decoder(U32)
_any_hello = msgspec.msgpack.Decoder(_AnyHello)
_from_guest: msgspec.msgpack.Decoder[FromGuest] = msgspec.msgpack.Decoder(FromGuest)
_from_anybody: msgspec.msgpack.Decoder[FromHost | FromGuest] = msgspec.msgpack.Decoder(FromHost | FromGuest)


def encode(frame: Frame) -> bytes:
    """A frame with its length."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(4, "little") + body


def decode(body: bytes) -> FromGuest:
    """A frame of a guest out of its bytes, without its length. Raises ChannelError."""
    return _decode(_from_guest, body, GUEST_KINDS)


def decode_any(body: bytes) -> FromHost | FromGuest:
    """A frame of either side. Raises ChannelError."""
    return _decode(_from_anybody, body, KINDS)


def _decode(decoder: msgspec.msgpack.Decoder[Any], body: bytes, kinds: Mapping[int, type[Frame]]) -> Any:
    try:
        frame = decoder.decode(body)
    except _NO_FRAME as error:
        raise _fault(body, error, kinds) from None
    if type(frame) is Hello:
        _check_version(frame.magic, frame.version)
    return frame


def _fault(body: bytes, error: Exception, kinds: Mapping[int, type[Frame]]) -> ChannelError:
    """What is wrong with it: a second look, which trusts no count or length."""
    kind = _kind_of(body[:_KIND_BYTES])
    if kind is None:
        return ChannelError("malformed", need="an array that begins with the number of a kind", have=str(error))
    if kind not in kinds:
        return ChannelError("kind", need="a known kind of frame", have=str(kind))
    if kind == 0:
        try:
            other = _any_hello.decode(body)
            _check_version(other.magic, other.version)
        except _NO_FRAME:
            # Not even the beginning that all versions have.
            pass
        except ChannelError as fault:
            return fault
    return ChannelError("fields", need=f"the fields of {kinds[kind].__name__}", have=str(error))


#: An array's head and a number, in their longest forms.
_KIND_BYTES = 5 + 9


def _kind_of(head: bytes) -> int | None:
    """The number that an array begins with; None where that is something else."""
    if not head:
        return None
    at = {0xDC: 3, 0xDD: 5}.get(head[0], 1)
    if not (0x90 < head[0] <= 0x9F or at > 1):
        return None
    try:
        return _number.decode(head[at : at + _NUMBER_BYTES.get(head[at], 1)])
    except (IndexError, msgspec.DecodeError):
        return None


_NUMBER_BYTES = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}


def _check_version(magic: str, version: int) -> None:
    if (magic, version) != (MAGIC, VERSION):
        raise ChannelError(
            "version",
            need=f"{MAGIC} {VERSION}",
            have=f"{magic[:20]!r} {version}",
            hint="the box needs the native program of this version",
        )
