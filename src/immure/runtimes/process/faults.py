"""What the native program reports, in sentences: the object, what was needed, what was there, what to do."""

from __future__ import annotations

import os

from immure.errors import SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.process import frames

_EPERM, _ENOENT, _EACCES, _EINVAL, _ENOSPC, _EUSERS, _ESTALE, _EOPNOTSUPP = 1, 2, 13, 22, 28, 87, 116, 95

_HINTS: dict[tuple[str, int], tuple[str, str]] = {
    ("idmap", _EINVAL): (
        "a file system that can be idmapped",
        "mount a folder of another file system (ext4, xfs, btrfs, tmpfs …), or run as a plain user",
    ),
    ("mount", _ENOENT): (
        "a target that exists in what is mounted there",
        "create it in the folder above, or mount elsewhere",
    ),
    ("mount source", _ESTALE): ("the same object for both of us", "don't replace the folder while a box starts"),
    ("box", _ENOSPC): ("room for another user namespace", "sysctl -w user.max_user_namespaces=10000"),
    ("box", _EPERM): (
        "user namespaces for this user",
        "see `immure doctor`",
    ),
    ("id range", _EUSERS): ("a free range of ids", "end other boxes, or widen the range in /etc/subuid"),
    ("witness", _EPERM): ("ptrace of own descendants", "sysctl -w kernel.yama.ptrace_scope=1"),
    ("bind", _ENOENT): ("a folder of the host", "see `immure doctor`"),
    ("landlock", _EOPNOTSUPP): ("a kernel with Landlock enabled", "add landlock to lsm= on the kernel's command line"),
}


def explain(message: bytes, launch: Launch) -> SetupFailed:
    """The error of a FAILED message."""
    number = frames.i32(message, 8)
    step, _, rest = message[12:].partition(b"\0")
    name = step.decode(errors="replace")
    thing = rest.rstrip(b"\0").decode(errors="backslashreplace")
    need, hint = _HINTS.get((name, number), (None, None))
    del launch
    return SetupFailed(
        f"the box could not be made: {name} {thing}".rstrip(),
        step=name,
        errno=number,
        need=need,
        have=os.strerror(number),
        hint=hint,
    )
