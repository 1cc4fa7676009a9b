"""Process 1 of a box can't be looked into by its commands, whoever they are."""

from __future__ import annotations

import pytest

from immure import Sandbox, run

from .command_line import python

pytestmark = pytest.mark.rootless

#: Tries to read every entry of a process, and prints those that could be.
LOOK = python(
    "import os,sys\n"
    "for name in ('environ','mem','maps','smaps','auxv','stack','syscall','pagemap','io','personality','clear_refs'):\n"
    "    try:\n"
    "        with open(f'/proc/{sys.argv[1]}/{name}', 'rb') as f:\n"
    "            if name == 'mem': f.seek(0x400000)\n"
    "            content = f.read(64)\n"
    "        if content: print(name)\n"
    "    except (OSError, ValueError): pass\n"
    "for name in ('fd','map_files','fdinfo','task/%s/fd' % sys.argv[1]):\n"
    "    try:\n"
    "        if os.listdir(f'/proc/{sys.argv[1]}/{name}'): print(name)\n"
    "    except OSError: pass\n"
    "for name in ('exe','cwd','root','fd/0','fd/3','ns/mnt','ns/user'):\n"
    "    try: print(name, os.readlink(f'/proc/{sys.argv[1]}/{name}'))\n"
    "    except OSError: pass\n"
    "    try: os.stat(f'/proc/{sys.argv[1]}/{name}'); print(name, 'followed')\n"
    "    except OSError: pass\n",
)
WRITE = python(
    "import os,sys\n"
    "for name in ('mem','oom_score_adj','comm','coredump_filter','timerslack_ns','autogroup','attr/current',"
    "'uid_map','gid_map','setgroups'):\n"
    "    try:\n"
    "        fd = os.open(f'/proc/{sys.argv[1]}/{name}', os.O_WRONLY)\n"
    "        os.write(fd, b'1'); print(name)\n"
    "    except OSError: pass\n"
)


@pytest.mark.parametrize("user", [1000, 0])
@pytest.mark.parametrize("pid", ["1"])
def test_nothing_of_it_can_be_read(pid: str, user: int) -> None:
    assert run([*LOOK, pid], user=user).stdout == b""
    with Sandbox(user=user) as box:
        assert box.exec([*LOOK, pid]).stdout == b""
        assert b"maps" in box.exec([*LOOK, "self"]).stdout, "the control"


@pytest.mark.parametrize("user", [1000, 0])
@pytest.mark.parametrize("pid", ["1"])
def test_nothing_of_it_can_be_written(pid: str, user: int) -> None:
    assert run([*WRITE, pid], user=user).stdout == b""


@pytest.mark.parametrize("pid", [1])
def test_it_can_not_be_traced_or_its_memory_read(pid: int) -> None:
    program = python(
        "import ctypes,sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "pid = int(sys.argv[1])\n"
        "for request in (16, 0x4206):\n"
        "    if libc.ptrace(request, pid, 0, 0) == 0: print('traced')\n"
        "class iov(ctypes.Structure): _fields_ = (('base', ctypes.c_void_p), ('len', ctypes.c_size_t))\n"
        "buffer = ctypes.create_string_buffer(8)\n"
        "ours, theirs = iov(ctypes.addressof(buffer), 8), iov(0x400000, 8)\n"
        "if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) > 0: print('read')\n"
        "fd = libc.syscall(434, pid, 0)\n"
        "if fd >= 0 and libc.syscall(438, fd, 0, 0) >= 0: print('descriptor taken')\n",
        str(pid),
    )
    for user in (1000, 0):
        assert run(program, user=user).stdout == b""


def test_what_everybody_may_know_of_them_holds_nothing_of_the_host() -> None:
    result = run(["sh", "-c", "cat /proc/1/cmdline /proc/2/cmdline /proc/1/comm /proc/2/comm /proc/1/mountinfo"])
    text = result.stdout.text()
    assert "immure" in text
    assert "/home" not in text
    assert "/root" not in text.replace("/root rw", "")
