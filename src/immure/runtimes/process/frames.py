"""Messages between the engine, the spawner and a box's stem: little-endian datagrams.

The other side is `native/src/frame.rs`. Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

from immure.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PLAN, BOX, RELEASE, KILL = 2, 3, 4, 5
EXEC, SIGNAL, PAUSE, RESUME, OPEN_TERMINAL = 11, 12, 13, 14, 15
READY, ENDED, FAILED = 101, 102, 103
EXITED, LISTENER, STARTED, OPENED_TERMINAL, DRAINED = 111, 112, 113, 114, 115

ONE_SHOT = 1
IN_FILE = 1
NO_INPUT = 4
HOLD, BUILTIN = 8, 16
TELL, TERMINAL = 32, 64
GROUP = 2
DRAINING = 128

#: A longer payload goes into a memory file.
INLINE_LIMIT = 3 * 1024
#: The longest readback holds two programs of 4,096 instructions. Python allocates as much for each message.
MESSAGE_LIMIT = 80 * 1024
#: Of an EXITED; and the longest message that a command's asker hears, and more.
EXITED_BYTES = 36
SHORT_LIMIT = 256

#: The steps of a command's last stage, as the native program numbers them.
STEPS = (
    "",
    "exec",
    "stdio",
    "signals",
    "session",
    "workdir",
    "rlimit",
    "capabilities",
    "identity",
    "no_new_privs",
    "seccomp",
    "witness",
    "paused",
)
PAUSED = STEPS.index("paused")


def header(kind: int, flags: int = 0, number: int = 0) -> bytes:
    """The eight bytes that every message begins with."""
    return (kind | flags << 16 | number << 32).to_bytes(8, "little")


def kind_of(message: bytes) -> int:
    """The kind of a message."""
    return int.from_bytes(message[:2], "little")


def u32(data: bytes, offset: int) -> int:
    """One unsigned number of 32 bits."""
    return int.from_bytes(data[offset : offset + 4], "little")


def i32(data: bytes, offset: int) -> int:
    """One signed number of 32 bits."""
    return int.from_bytes(data[offset : offset + 4], "little", signed=True)


def u64(data: bytes, offset: int) -> int:
    """One unsigned number of 64 bits."""
    return int.from_bytes(data[offset : offset + 8], "little")


def exit_parts(message: bytes) -> tuple[int, int, int, int, int]:
    """Of an EXITED: status, errno, step, processor time in us, peak of memory in KiB."""
    return i32(message, 8), i32(message, 12), u32(message, 16), u64(message, 20), u64(message, 28)


def items(data: bytes, offset: int) -> dict[str, bytes]:
    """Named values: `u8 length, name, u32 length, value`. Raises ValueError where one was cut."""
    found: dict[str, bytes] = {}
    while offset < len(data):
        begin = offset + 1
        end = begin + data[offset]
        value = end + 4
        offset = value + u32(data, end)
        if offset > len(data):
            raise ValueError("a message was cut")
        found[data[begin:end].decode()] = data[value:offset]
    return found


def exec_payload(
    uid: int,
    gid: int,
    workdir: str,
    argv: list[bytes],
    env: Mapping[bytes, bytes],
    entries: list[bytes] | None = None,
) -> bytes:
    """A command. `entries` are those of `env`, where they are at hand. Raises SpecError for a NUL byte anywhere."""
    if entries is None:
        entries = [name + b"=" + value for name, value in env.items()]
    parts = (workdir.encode(errors="surrogateescape"), env.get(b"PATH", b""), *argv, *entries)
    body = b"\0".join(parts) + b"\0"
    if body.count(b"\0") != len(parts):
        raise SpecError(
            "a NUL byte in an argument, the environment or the working directory",
            path="$.spec.command",
            need="strings that the kernel takes",
        )
    return (uid | gid << 32 | len(argv) << 64 | len(entries) << 96).to_bytes(16, "little") + body


def exec_parts(payload: bytes) -> tuple[int, int, str, list[bytes], dict[bytes, bytes]]:
    """The inverse of `exec_payload`: user, group, working directory, arguments, environment. Raises ValueError."""
    uid, gid, argc, envc = (u32(payload, offset) for offset in (0, 4, 8, 12))
    parts = payload[16:].split(b"\0")[:-1]
    if len(parts) != 2 + argc + envc:
        raise ValueError("a command was cut")
    pairs = (part.partition(b"=") for part in parts[2 + argc :])
    return (
        uid,
        gid,
        parts[0].decode(errors="surrogateescape"),
        parts[2 : 2 + argc],
        {name: value for name, _, value in pairs},
    )
