"""Frames out of a stream that comes in pieces of any size."""

from __future__ import annotations

from immure.errors import ChannelError

_HEAD = 4


class Splitter:
    """Keeps what was not taken yet: with its user, who takes all that is whole, less than a frame of `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()
        #: How much of the buffer was given out.
        self._taken = 0

    def put(self, data: bytes | memoryview) -> None:
        """Takes what has come."""
        del self._buffer[: self._taken]
        self._taken = 0
        self._buffer += data

    def next(self) -> bytes | None:
        """The next frame without its length, where it is whole.

        Raises ChannelError for a length that can't be, as soon as it is known.
        """
        begin = self._taken + _HEAD
        if len(self._buffer) < begin:
            return None
        length = int.from_bytes(self._buffer[self._taken : begin], "little")
        if not 0 < length <= self._most:
            raise ChannelError("length", need=f"1 to {self._most} bytes", have=str(length))
        end = begin + length
        if len(self._buffer) < end:
            return None
        self._taken = end
        with memoryview(self._buffer) as view:
            return bytes(view[begin:end])

    def is_empty(self) -> bool:
        """Whether no part of a frame is there."""
        return len(self._buffer) == self._taken
