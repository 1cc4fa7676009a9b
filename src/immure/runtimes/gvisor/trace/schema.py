"""What the Sentry says of its trace points: each message, the number it goes by, and its fields.

Sources: the message types and field numbers of gVisor's `pkg/sentry/seccheck/points`, as of 2026-09. Older versions
send fewer of the fields, and no others.
"""

from __future__ import annotations

from immure.runtimes.gvisor.trace.wire import (
    Field,
    Message,
    boolean,
    data,
    i32,
    i64,
    nested,
    text,
    texts,
    u32,
    u64,
)

HANDSHAKE = Message("Handshake", u32(1, "version"))

_TIME = Message("Timespec", i64(1, "sec"), i64(2, "nsec"))
CREDENTIALS = Message(
    "Credentials",
    u32(1, "real_uid"),
    u32(2, "effective_uid"),
    u32(3, "saved_uid"),
    u32(4, "real_gid"),
    u32(5, "effective_gid"),
    u32(6, "saved_gid"),
)
CONTEXT = Message(
    "ContextData",
    i64(1, "time_ns"),
    i32(2, "thread_id"),
    i64(3, "thread_start_time_ns"),
    i32(4, "thread_group_id"),
    i64(5, "thread_group_start_time_ns"),
    text(6, "container_id"),
    nested(7, "credentials", of=CREDENTIALS),
    text(8, "cwd"),
    text(9, "process_name"),
    i32(10, "parent_thread_group_id"),
    boolean(11, "is_exec_session"),
)
_SOCKET_END = Message("SocketIp", u32(1, "family"), data(2, "ip"), u32(3, "port"))
_SOCKET = Message(
    "SocketInfo", u32(1, "family"), nested(2, "local", of=_SOCKET_END), nested(3, "remote", of=_SOCKET_END)
)
_DESCRIPTOR = Message("FdInfo", u32(1, "mode"), u64(2, "ino"), text(3, "path"), nested(4, "socket", of=_SOCKET))
_PIPE_END = Message("PipeProcInfo", nested(1, "context_data", of=CONTEXT))
EXIT = Message("Exit", i64(1, "result"), i64(2, "errorno"))
_RESOURCE_LIMIT = Message("StructRlimit", u64(1, "cur"), u64(2, "max"))
_TIMER = Message("ItimerSpec", nested(1, "interval", of=_TIME), nested(2, "value", of=_TIME))

_CONTEXT_FIELD = nested(1, "context_data", of=CONTEXT)
_EXIT_FIELD = nested(2, "exit", of=EXIT)

RAW = Message(
    "Syscall",
    _CONTEXT_FIELD,
    _EXIT_FIELD,
    u64(4, "sysno"),
    *(u64(4 + place, f"arg{place}") for place in range(1, 7)),
)


def _point(name: str, *fields: Field) -> Message:
    return Message(name, _CONTEXT_FIELD, *fields)


def _call(name: str, *fields: Field) -> Message:
    return Message(name, _CONTEXT_FIELD, _EXIT_FIELD, u64(3, "sysno"), *fields)


#: Points that are no system calls: the type of the message, its point, and what it says.
POINTS: dict[int, tuple[str, Message]] = {
    1: (
        "container/start",
        _point("Start", text(2, "id"), text(3, "cwd"), texts(4, "args"), texts(5, "env"), boolean(6, "terminal")),
    ),
    2: (
        "sentry/clone",
        _point(
            "CloneInfo",
            i32(3, "created_thread_id"),
            i32(4, "created_thread_group_id"),
            i64(5, "created_thread_start_time_ns"),
            u64(6, "flags"),
        ),
    ),
    3: (
        "sentry/execve",
        _point(
            "ExecveInfo",
            text(2, "binary_path"),
            texts(3, "argv"),
            texts(4, "env"),
            u32(5, "binary_mode"),
            u32(6, "binary_uid"),
            u32(7, "binary_gid"),
            data(8, "binary_sha256"),
            boolean(9, "binary_overlayfs_upper"),
            u64(10, "binary_ino"),
            nested(11, "binary_ctime", of=_TIME),
            nested(12, "stdin", of=_DESCRIPTOR),
            nested(13, "stdout", of=_DESCRIPTOR),
            nested(14, "stderr", of=_DESCRIPTOR),
            boolean(15, "binary_overlayfs_lower"),
            data(16, "binary_sha1"),
            text(17, "execfn"),
            i64(18, "binary_size"),
            u32(19, "binary_nlink"),
            boolean(20, "binary_in_memfd"),
            nested(21, "pipe_input_proc", of=_PIPE_END),
            nested(22, "pipe_output_proc", of=_PIPE_END),
        ),
    ),
    4: ("sentry/exit_notify_parent", _point("ExitNotifyParentInfo", i32(2, "exit_status"))),
    5: ("sentry/task_exit", _point("TaskExit", i32(2, "exit_status"))),
    35: (
        "sentry/mmap",
        _point(
            "MmapInfo",
            text(2, "mapped_path"),
            u64(3, "mapped_ino"),
            u32(4, "mapped_mode"),
            u32(5, "mapped_uid"),
            u32(6, "mapped_gid"),
            boolean(7, "is_initial_mmap"),
            nested(8, "mapped_ctime", of=_TIME),
            boolean(9, "overlayfs_upper"),
            boolean(10, "overlayfs_lower"),
        ),
    ),
}

RAW_TYPE = 6


def _transfer(name: str) -> Message:
    return _call(
        name,
        i64(4, "fd"),
        text(5, "fd_path"),
        u64(6, "count"),
        boolean(7, "has_offset"),
        i64(8, "offset"),
        u32(9, "flags"),
    )


#: System calls of which the arguments are read; `sysno` says which one of several with the same message it was.
CALLS: dict[int, Message] = {
    7: _call("Open", i64(4, "fd"), text(5, "fd_path"), text(6, "pathname"), u32(7, "flags"), u32(8, "mode")),
    8: _call("Close", i64(4, "fd"), text(5, "fd_path")),
    9: _transfer("Read"),
    10: _call("Connect", i64(4, "fd"), text(5, "fd_path"), data(6, "address")),
    11: _call(
        "Execve",
        i64(4, "fd"),
        text(5, "fd_path"),
        text(6, "pathname"),
        texts(7, "argv"),
        texts(8, "envv"),
        u32(9, "flags"),
    ),
    12: _call("Socket", i32(4, "domain"), i32(5, "type"), i32(6, "protocol")),
    13: _call("Chdir", i64(4, "fd"), text(5, "fd_path"), text(6, "pathname")),
    14: _call("Setid", u32(4, "id")),
    15: _call("Setresid", u32(4, "rid"), u32(5, "eid"), u32(6, "sid")),
    16: _call(
        "Prlimit",
        i32(4, "pid"),
        i64(5, "resource"),
        nested(6, "new_limit", of=_RESOURCE_LIMIT),
        nested(7, "old_limit", of=_RESOURCE_LIMIT),
    ),
    17: _call("Pipe", u32(4, "flags"), i32(5, "reader"), i32(6, "writer")),
    18: _call("Fcntl", i32(4, "fd"), text(5, "fd_path"), i32(6, "cmd"), i64(7, "args")),
    19: _call("Dup", i32(4, "old_fd"), i32(5, "new_fd"), text(6, "fd_path"), u32(7, "flags")),
    20: _call("Signalfd", i32(4, "fd"), text(5, "fd_path"), u64(6, "sigset"), i32(7, "flags")),
    21: _call("Chroot", text(4, "pathname")),
    22: _call("Eventfd", i32(4, "val"), u32(5, "flags")),
    23: _call("Clone", u64(4, "flags"), u64(5, "stack"), u64(6, "new_tid"), u64(7, "tls")),
    24: _call("Bind", i32(4, "fd"), text(5, "fd_path"), data(6, "address")),
    25: _call("Accept", i32(4, "fd"), text(5, "fd_path"), data(6, "address"), i32(7, "flags")),
    26: _call("TimerfdCreate", i32(4, "clock_id"), i32(5, "flags")),
    27: _call(
        "TimerfdSetTime",
        i32(4, "fd"),
        text(5, "fd_path"),
        i32(6, "flags"),
        nested(7, "new_value", of=_TIMER),
        nested(8, "old_value", of=_TIMER),
    ),
    28: _call("TimerfdGetTime", i32(4, "fd"), text(5, "fd_path"), nested(6, "cur_value", of=_TIMER)),
    29: _call("Fork"),
    30: _call("InotifyInit", i32(4, "flags")),
    31: _call("InotifyAddWatch", i32(4, "fd"), text(5, "fd_path"), text(6, "pathname"), u32(7, "mask")),
    32: _call("InotifyRmWatch", i32(4, "fd"), text(5, "fd_path"), i32(6, "wd")),
    33: _call(
        "SocketPair",
        i32(4, "domain"),
        i32(5, "type"),
        i32(6, "protocol"),
        i32(7, "socket1"),
        i32(8, "socket2"),
    ),
    34: _transfer("Write"),
    36: _call(
        "Mmap",
        i64(4, "fd"),
        text(5, "fd_path"),
        u64(6, "addr"),
        u64(7, "length"),
        u32(8, "prot"),
        u32(9, "flags"),
        i64(10, "offset"),
    ),
    37: _call(
        "Listen",
        i32(4, "fd"),
        text(5, "fd_path"),
        i32(6, "backlog"),
        data(7, "address"),
        i32(8, "socket_family"),
        i32(9, "socket_type"),
    ),
    38: _call("Ptrace", i64(4, "request"), i32(5, "pid")),
}
