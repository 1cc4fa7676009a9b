"""The bounds of the channel. `native/src/channel/mod.rs` has the same."""

from __future__ import annotations

MAGIC = "immure"
VERSION = 1

#: The most that one frame carries of a stream.
CHUNK_BYTES = 64 * 1024
#: The longest frame from a guest, and from a host: that which holds as many arguments as the kernel ever takes, 6 MiB.
#: execve(2).
GUEST_FRAME_BYTES = CHUNK_BYTES + 1024
COMMAND_BYTES = 6 << 20
HOST_FRAME_BYTES = COMMAND_BYTES + 1024
#: What may be under way in one direction of a stream before its receiver has said that it has room again.
WINDOW_BYTES = 256 * 1024
#: Commands at once.
STREAMS = 1024
#: What the limits of a hello may be, from and to.
FRAME_BYTES_RANGE = (4096, 8 << 20)
WINDOW_BYTES_RANGE = (4096, 4 << 20)
STREAMS_RANGE = (1, 4096)
#: The longest text of a fault.
FAULT_BYTES = 4096
