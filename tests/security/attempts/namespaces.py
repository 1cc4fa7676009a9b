"""Roads to a namespace, where a plain user would be root, and back into the host's."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal

from security.attempt import attempt
from security.calls import call

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x2_0000, 0x0200_0000, 0x0400_0000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000

_OTHERS = {
    "mnt": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
_FLAGS = {name: {"flag": flag} for name, flag in _OTHERS.items()}
_ENTERED = {name: {"name": name} for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}

_NS_GET_PARENT = 0xB702
_SIGCHLD = int(signal.SIGCHLD)


def _reap(child: int) -> str:
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return f"process {child}"


@attempt("EPERM")
def unshare_user() -> str:
    call("unshare", CLONE_NEWUSER)
    return "root of a new user namespace"


@attempt("EPERM", cases=_FLAGS, needs_root=True)
def unshare_other(flag: int) -> str:
    call("unshare", flag)
    return "unshared"


@attempt("EPERM", cases=_FLAGS)
def unshare_user_and_other(flag: int) -> str:
    call("unshare", CLONE_NEWUSER | flag)
    return "unshared"


@attempt("EPERM")
def clone_user() -> str:
    return _reap(call("clone", CLONE_NEWUSER | _SIGCHLD, 0, 0, 0, 0))


@attempt("EPERM")
def clone_user_with_wide_flags() -> str:
    """The old clone ignores the upper half of its flags; so must the filter."""
    return _reap(call("clone", 0x5A5A_0000_0000_0000 | CLONE_NEWUSER | _SIGCHLD, 0, 0, 0, 0))


@attempt("EPERM", cases={name: {"flag": flag} for name, flag in _OTHERS.items() if name != "time"}, needs_root=True)
def clone_other(flag: int) -> str:
    return _reap(call("clone", flag | _SIGCHLD, 0, 0, 0, 0))


@attempt("ENOSYS")
def clone3_user() -> str:
    """The flags are in memory, where no filter can look: the whole call must be missing."""
    arguments = (ctypes.c_uint64 * 11)(CLONE_NEWUSER, 0, 0, 0, _SIGCHLD)
    return _reap(call("clone3", arguments, ctypes.sizeof(arguments)))


@attempt("ENOSYS")
def clone3_plain() -> str:
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, _SIGCHLD)
    return _reap(call("clone3", arguments, ctypes.sizeof(arguments)))


@attempt("EACCES", each_scene="init", cases=_ENTERED)
def namespace_of_process(pid: int, name: str) -> str:
    """Take hold of a namespace of a process that is more than we are."""
    return f"descriptor {os.open(f'/proc/{pid}/ns/{name}', os.O_RDONLY)}"


@attempt("EPERM", each_scene="init", needs_root=True)
def enter_by_pidfd(pid: int) -> str:
    call("setns", call("pidfd_open", pid, 0), CLONE_NEWNET)
    return "entered"


@attempt("EPERM", cases={name: {"name": name} for name in ("ipc", "mnt", "net", "uts")}, needs_root=True)
def enter_own(name: str) -> str:
    """Entering what one is in needs the right to enter."""
    call("setns", os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0)
    return "entered"


@attempt("EPERM", scenes="namespaced_process", cases={"pid": {"name": "pid"}, "user": {"name": "user"}})
def parent_namespace(folder: str, name: str) -> str:
    """Ask a namespace for the one around it."""
    own = os.open(f"{folder}/{name}", os.O_RDONLY)
    return f"descriptor {fcntl.ioctl(own, _NS_GET_PARENT)}"


@attempt("ENOENT EACCES", scenes="host_process")
def namespace_of_the_host(pid: int) -> str:
    return f"descriptor {os.open(f'/proc/{pid}/ns/mnt', os.O_RDONLY)}"
