"""What the native program reports, in sentences: the object, what was needed, what was there, what to do."""

from __future__ import annotations

import os

from immure.errors import BoxError, BoxLost, ExecFailed, SetupFailed
from immure.runtimes.process import frames
from immure.runtimes.process.request import Request

_EPERM, _ENOENT, _ECHILD, _ENOTDIR, _EINVAL, _ENOSPC, _ELOOP = 1, 2, 10, 20, 22, 28, 40
_EUSERS, _EOPNOTSUPP, _ESTALE = 87, 95, 116
_EBADMSG, _NOT_FOUND, _NOT_EXECUTABLE = 74, 127, 126

_HINTS: dict[tuple[str, int], tuple[str, str]] = {
    ("idmap", _EINVAL): (
        "a file system that can be idmapped",
        "mount a folder of another file system (ext4, xfs, btrfs, tmpfs …), or run as a plain user",
    ),
    ("mount", _ENOENT): (
        "a target that exists in what is mounted there",
        "create it in the folder above, or mount elsewhere",
    ),
    ("mount", _ELOOP): (
        "a target without symbolic links on its way",
        "name the folder that the link leads to; if you made none, a box has left it there: look before you go on",
    ),
    ("mount source", _ESTALE): (
        "the same object for both of us",
        "don't replace the folder while a box starts",
    ),
    ("box", _ENOSPC): ("room for another user namespace", "sysctl -w user.max_user_namespaces=10000"),
    ("box", _EPERM): (
        "user namespaces for this user",
        "see `immure doctor`",
    ),
    ("id range", _EUSERS): ("a free range of ids", "end other boxes, or widen the range in /etc/subuid"),
    ("witness", _EPERM): ("ptrace of own descendants", "sysctl -w kernel.yama.ptrace_scope=1"),
    ("witness", _ECHILD): (
        "a process that lives until it is inspected: it ended before that",
        "see whether the profile kills a call of its way to execve, and whether memory_mib is enough for the box",
    ),
    ("bind", _ENOENT): ("a folder of the host", "see `immure doctor`"),
    ("bind", _ENOTDIR): (
        "the image as it was when it was looked at",
        "don't change the image's folder while a box starts",
    ),
    ("landlock", _EOPNOTSUPP): (
        "a kernel with Landlock enabled",
        "add landlock to lsm= on the kernel's command line",
    ),
}


def explain(message: bytes) -> SetupFailed:
    """The error of a FAILED message."""
    return explain_fault(*_fault_of(message))


def explain_last(message: bytes) -> BoxError:
    """The error of a spawner's own FAILED message. One that never came to serve is replaced, as one that was killed."""
    step, thing, number = _fault_of(message)
    if (step, number) != ("config", _EBADMSG):
        return explain_fault(step, thing, number)
    return BoxLost(
        "the spawner could not start",
        need="its configuration first",
        have=thing,
        hint="try again; where that does not help, install immure anew: its native program may be another version's",
    )


def _fault_of(message: bytes) -> tuple[str, str, int]:
    number = frames.i32(message, 8)
    step, _, rest = message[12:].partition(b"\0")
    return step.decode(errors="replace"), rest.rstrip(b"\0").decode(errors="backslashreplace"), number


def explain_fault(name: str, thing: str, number: int) -> SetupFailed:
    """The error of a step, its object and the kernel's answer."""
    need, hint = _HINTS.get((name, number), (None, None))
    return SetupFailed(
        f"the box could not be made: {name} {thing}".rstrip(),
        step=name,
        errno=number,
        need=need,
        have=os.strerror(number),
        hint=hint,
    )


def box_paused() -> BoxError:
    """The error of what is asked of a box that stands still."""
    return BoxError("the box is paused", need="a box that runs", hint="resume it first")


def exec_failed(request: Request, number: int, step: str) -> BoxError:
    """The error of a command that never started: ExecFailed but where the box is paused."""
    if step == frames.STEPS[frames.PAUSED]:
        return box_paused()
    command = os.fsdecode(request.argv[0])
    if step == "workdir":
        return ExecFailed(
            f"the working directory {request.workdir} can't be entered",
            exit_status=_NOT_EXECUTABLE,
            need="a folder of the box that its user may enter",
            have=os.strerror(number),
            hint="mount one there, or choose another with -w",
        )
    if step == "identity":
        return ExecFailed(
            f"{command} was not started: user {request.uid} is not mapped in the box",
            exit_status=_NOT_EXECUTABLE,
            need="a user of the box",
            have=os.strerror(number),
            hint="see `immure doctor` for how many ids a box has",
        )
    if step != "exec":
        return ExecFailed(f"{command} was not started: {step}", exit_status=_NOT_EXECUTABLE, have=os.strerror(number))
    if number in (_ENOENT, _ENOTDIR):
        return ExecFailed(
            f"{command} was not found in the box",
            exit_status=_NOT_FOUND,
            need="a command of the image or of a mount",
            have=os.strerror(number),
            hint=_mount_hint(command) if request.launch.image is None else _image_hint(request.launch.image[0]),
        )
    return ExecFailed(f"{command} can't be executed in the box", exit_status=_NOT_EXECUTABLE, have=os.strerror(number))


def _image_hint(folder: str) -> str:
    return f"see whether it, and the interpreter or loader that it needs, are in {folder}"


def _mount_hint(command: str) -> str | None:
    """The mount that would bring a command that this host has."""
    import shutil

    found = shutil.which(command)
    if found is None:
        return None
    real = os.path.realpath(found)
    folder = os.path.dirname(real)  # noqa: PTH120
    prefix = os.path.dirname(folder) if os.path.basename(folder) in ("bin", "sbin", "shims") else folder  # noqa: PTH119, PTH120
    return f"the host has {real}: mount it with -v {prefix}:{prefix}"
