"""A command as it is asked for. Standard library only: this is on the hot path."""

from __future__ import annotations

from immure.plan.launch import Launch
from immure.runtimes.process import frames


class Request:
    """A command: bytes throughout, as execve takes them."""

    __slots__ = ("argv", "env", "gid", "launch", "output_bytes", "timeout_s", "uid", "workdir")

    def __init__(self, launch: Launch, argv: list[bytes]) -> None:
        self.launch = launch
        self.argv = argv
        self.env = dict(launch.environment())
        self.uid = self.gid = launch.user
        self.workdir = launch.workdir
        self.timeout_s = launch.timeout_s
        self.output_bytes = launch.output_bytes

    @classmethod
    def of(cls, launch: Launch, payload: bytes) -> Request:
        """The request that a payload was made of. Raises ValueError for other bytes."""
        uid, gid, workdir, argv, env = frames.exec_parts(payload)
        request = cls(launch, argv)
        request.uid, request.gid, request.workdir, request.env = uid, gid, workdir, env
        return request

    def payload(self) -> bytes:
        """The request as the stem reads it."""
        return frames.exec_payload(self.uid, self.gid, self.workdir, self.argv, self.env)
