"""Leaving a setuid or setgid file in a writable mount: on the host it would be the caller's, root's perhaps."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from pathlib import Path

from security.attempt import Denied, attempt
from security.calls import AT_FDCWD, call, raise_errno

_BOTH = stat.S_ISUID | stat.S_ISGID
_CASES = {"setuid": {"mode": 0o4755}, "setgid": {"mode": 0o2755}}
_CREATE = os.O_CREAT | os.O_WRONLY
_TMPFILE = os.O_TMPFILE | os.O_RDWR
_AT_SYMLINK_FOLLOW = 0x400

# The kernel takes 16 bits of a mode and 32 of an open's flags; a filter that compares more can be fooled.
_WIDE_MODE = 0x5A5A_0001_0001_0000
_WIDE_FLAGS = 1 << 40


def _plain(work: str) -> bytes:
    path = Path(work, "program")
    path.write_text("#!/bin/sh\n")
    return bytes(path)


def _planted(path: bytes) -> str:
    mode = Path(os.fsdecode(path)).stat().st_mode
    if not mode & _BOTH:
        raise Denied("STRIPPED", stat.filemode(mode))
    return stat.filemode(mode)


def _new(work: str) -> bytes:
    os.umask(0)
    return bytes(Path(work, "planted"))


def _publish(descriptor: int, path: bytes) -> str:
    """Give a nameless file its name."""
    call("linkat", AT_FDCWD, f"/proc/self/fd/{descriptor}".encode(), AT_FDCWD, path, _AT_SYMLINK_FOLLOW)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_chmod(work: str, mode: int) -> str:
    path = _plain(work)
    call("chmod", path, mode)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_chmod_with_wide_mode(work: str, mode: int) -> str:
    path = _plain(work)
    call("chmod", path, _WIDE_MODE | mode)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_fchmod(work: str, mode: int) -> str:
    path = _plain(work)
    call("fchmod", os.open(path, os.O_RDWR), mode)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_fchmodat(work: str, mode: int) -> str:
    path = _plain(work)
    call("fchmodat", AT_FDCWD, path, mode)
    return _planted(path)


@attempt("ENOSYS", scenes="workspace", cases=_CASES)
def by_fchmodat2(work: str, mode: int) -> str:
    path = _plain(work)
    call("fchmodat2", AT_FDCWD, path, mode, 0)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_creat(work: str, mode: int) -> str:
    path = _new(work)
    call("creat", path, mode)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_open(work: str, mode: int) -> str:
    path = _new(work)
    call("open", path, _CREATE, mode)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_open_with_wide_flags(work: str, mode: int) -> str:
    path = _new(work)
    call("open", path, _WIDE_FLAGS | _CREATE, _WIDE_MODE | mode)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_openat(work: str, mode: int) -> str:
    path = _new(work)
    call("openat", AT_FDCWD, path, _CREATE, mode)
    return _planted(path)


@attempt("ENOSYS", scenes="workspace", cases=_CASES)
def by_openat2(work: str, mode: int) -> str:
    path = _new(work)
    how = (ctypes.c_uint64 * 3)(_CREATE, mode, 0)
    call("openat2", AT_FDCWD, path, how, 24)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_open_of_nameless_file(work: str, mode: int) -> str:
    """O_TMPFILE takes a mode without O_CREAT."""
    path = _new(work)
    return _publish(call("open", work.encode(), _TMPFILE, mode), path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_openat_of_nameless_file(work: str, mode: int) -> str:
    path = _new(work)
    return _publish(call("openat", AT_FDCWD, work.encode(), _TMPFILE, mode), path)


@attempt("EPERM", scenes="workspace")
def by_fchmod_of_nameless_file(work: str) -> str:
    path = _new(work)
    nameless = call("openat", AT_FDCWD, work.encode(), _TMPFILE, 0o755)
    call("fchmod", nameless, 0o4755)
    return _publish(nameless, path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_mknod(work: str, mode: int) -> str:
    path = _new(work)
    call("mknod", path, stat.S_IFREG | mode, 0)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_mknod_without_type(work: str, mode: int) -> str:
    """No type means a regular file."""
    path = _new(work)
    call("mknod", path, mode, 0)
    return _planted(path)


@attempt("EPERM", scenes="workspace", cases=_CASES)
def by_mknodat(work: str, mode: int) -> str:
    path = _new(work)
    call("mknodat", AT_FDCWD, path, stat.S_IFREG | mode, 0)
    return _planted(path)


@attempt("ENOSYS", scenes="workspace programs", cases=_CASES)
def by_chmod_of_i386(work: str, mode: int, programs: str) -> str:
    """The same call by the 32-bit entry, where another table of numbers holds."""
    path = _plain(work)
    entry = subprocess.run([f"{programs}/i386_entry", "chmod", path, str(mode)], capture_output=True, check=True)
    if (result := int(entry.stdout)) < 0:
        raise_errno(-result)
    return _planted(path)


@attempt("EPERM", scenes="workspace", needs_root=True)
def file_capabilities(work: str) -> str:
    """Capabilities on a file do what setuid does."""
    path = _plain(work)
    all_of_them = (0xFFFF_FFFF).to_bytes(4, "little")
    os.setxattr(path, "security.capability", b"\1\0\0\2" + (all_of_them + bytes(4)) * 2)
    return "set"
