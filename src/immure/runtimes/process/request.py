"""A command as it is asked for. Standard library only: this is on the hot path."""

from __future__ import annotations

from immure.plan.launch import Launch
from immure.runtimes.process import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Request:
    """A command: bytes throughout, as execve takes them."""

    __slots__ = ("_entries", "argv", "env", "gid", "launch", "output_bytes", "timeout_s", "uid", "workdir")

    #: It may be that of all commands of a launch: `set_env` and `add_env` change it.
    env: Mapping[bytes, bytes]

    def __init__(self, launch: Launch, argv: list[bytes]) -> None:
        self.launch = launch
        self.argv = argv
        self.env, entries = launch.environment()
        self._entries: list[bytes] | None = entries
        self.uid = self.gid = launch.user
        self.workdir = launch.workdir
        self.timeout_s = launch.timeout_s
        self.output_bytes = launch.output_bytes

    @classmethod
    def of(cls, launch: Launch, payload: bytes) -> Request:
        """The request that a payload was made of. Raises ValueError for other bytes."""
        uid, gid, workdir, argv, env = frames.exec_parts(payload)
        request = cls(launch, argv)
        request.uid, request.gid, request.workdir = uid, gid, workdir
        request.set_env(env)
        return request

    def set_env(self, env: Mapping[bytes, bytes]) -> None:
        """This, and nothing else, is its environment."""
        self.env, self._entries = env, None

    def add_env(self, entries: Mapping[bytes, bytes]) -> None:
        """Adds to the environment, or changes what is in it."""
        self.set_env({**self.env, **entries})

    def payload(self) -> bytes:
        """The request as the stem reads it."""
        return frames.exec_payload(self.uid, self.gid, self.workdir, self.argv, self.env, self._entries)
