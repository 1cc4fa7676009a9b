"""Proves the walls before anything is timed: a floor that leaves one out would be no floor.

One shell script makes the attempts. It runs on the host too, as the control: an attempt that is
refused there as well proves nothing, and counts as indeterminate.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import peers
from bench.filters import Filters
from bench.rivals import RIVALS, SANDLOCK, Rival

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
SECRET = "IMMURE_BENCH_SECRET"
# `attempt NAME COMMAND` prints "NAME<tab>open" where the command succeeds, else "NAME<tab>refused".
# No attempt does harm where it succeeds: signal 0, a value written back, files with a name of ours.
SCRIPT = r"""
attempt() { name=$1; shift; if ( "$@" ) >/dev/null 2>&1 </dev/null; then r=open; else r=refused; fi
            printf '%s\t%s\n' "$name" "$r"; }
file_in() { touch "$1/.immure-bench-$$" && rm "$1/.immure-bench-$$"; }
write_back() { value=$(cat "$1") && echo "$value" > "$1"; }
setuid_file() { f=/tmp/.immure-bench-$$; touch $f && chmod u+s $f; r=$?; rm -f $f; return $r; }
not_empty() { [ "$(head -c 1 "$1" | wc -c)" = 1 ]; }
connects() { bash -c ": < /dev/tcp/127.0.0.1/$1"; }
more_descriptors() { for fd in /proc/$$/fd/*; do [ "${fd##*/}" -le 2 ] || return 0; done; return 1; }

grep -E '^(NoNewPrivs|Seccomp|Cap[A-Z][a-z]+):' /proc/self/status
while read -r inside outside count; do printf 'uid_map\t%s\n' "$outside"; done < /proc/self/uid_map
for ns in user mnt pid net ipc uts cgroup; do printf 'ns.%s\t%s\n' $ns "$(readlink /proc/self/ns/$ns)"; done
attempt control.tmp file_in /tmp
attempt shadow cat /etc/shadow
attempt host_file cat "$1"
attempt root_rw file_in /
attempt usr_rw file_in /usr
attempt etc_rw file_in /etc
attempt sysctl write_back /proc/sys/kernel/panic_on_oops
attempt keys not_empty /proc/keys
attempt timers not_empty /proc/timer_list
attempt pid1 kill -0 1
attempt loopback connects "$2"
attempt userns unshare -U true
attempt setuid setuid_file
attempt disk [ -e "$3" ]
attempt env [ -n "$IMMURE_BENCH_SECRET" ]
attempt descriptors more_descriptors
attempt sentinel_there [ -e "$4" ]
attempt landlock cat "$4"
"""


@dataclass(frozen=True)
class Wall:
    what: str
    stands: Callable[[Mapping[str, str], Mapping[str, str]], bool]  # (seen inside, seen on the host)
    control: str | None = None  # the attempt that must succeed on the host
    control_inside: str = "control.tmp"  # the attempt that must succeed in the box


def _refused(what: str, key: str, control_inside: str = "control.tmp") -> Wall:
    return Wall(what, lambda box, _: box.get(key) == "refused", key, control_inside)


def _host_root_unmapped(box: Mapping[str, str], _: Mapping[str, str]) -> bool:
    return all(int(line) > 0 for line in box.get("uid_map", "0").splitlines())


def _no_capability(box: Mapping[str, str], _: Mapping[str, str]) -> bool:
    return all(int(box.get(f"Cap{kind}", "1"), 16) == 0 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))


def _own_namespaces(box: Mapping[str, str], host: Mapping[str, str]) -> bool:
    return all(box.get(f"ns.{kind}", "") not in ("", host[f"ns.{kind}"]) for kind in NAMESPACES)


WALLS = (
    Wall("host uid 0 is not mapped", _host_root_unmapped),
    Wall("all seven namespaces are its own", _own_namespaces),
    Wall("no capability, in no set", _no_capability),
    Wall("no_new_privs", lambda box, _: box.get("NoNewPrivs") == "1"),
    Wall("a system call filter", lambda box, _: box.get("Seccomp") == "2"),
    # Landlock doesn't stop stat: there, and yet not to be opened.
    _refused("a file outside every Landlock rule", "landlock", "sentinel_there"),
    _refused("the host's /etc/shadow", "shadow"),
    _refused("a host file", "host_file"),
    _refused("a disk of the host", "disk"),
    _refused("write in /", "root_rw"),
    _refused("write in /usr", "usr_rw"),
    _refused("write in /etc", "etc_rw"),
    _refused("write a sysctl", "sysctl"),
    _refused("read /proc/keys", "keys"),
    _refused("read /proc/timer_list", "timers"),
    _refused("signal pid 1", "pid1"),
    _refused("the host's loopback", "loopback"),
    _refused("a new user namespace", "userns"),
    _refused("plant a setuid file", "setuid"),
    _refused("the caller's environment", "env"),
    _refused("the caller's descriptors", "descriptors"),
)


class NothingSeen(Exception):
    """The script did not run at all, so nothing can be said about the walls."""


@dataclass(frozen=True)
class Bait:
    """What the attempts are after, on the host."""

    secret_file: str
    port: int
    disk: str
    descriptor: int  # inheritable, as a careless caller's would be

    def script(self, sentinel: str) -> list[str]:
        return ["/bin/sh", "-c", SCRIPT, "walls", self.secret_file, str(self.port), self.disk, sentinel]


@contextmanager
def bait() -> Iterator[Bait]:
    with (
        tempfile.NamedTemporaryFile(dir="/var/tmp") as secret,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        Path(secret.name).chmod(0o644)
        os.environ[SECRET] = "1"
        os.set_inheritable(secret.fileno(), True)
        try:
            yield Bait(secret.name, server.getsockname()[1], _a_disk(), secret.fileno())
        finally:
            del os.environ[SECRET]


def _a_disk() -> str:
    return next((str(path) for path in Path("/dev").iterdir() if path.is_block_device()), "/dev/kmsg")


def read(output: str) -> dict[str, str]:
    seen: dict[str, str] = {}
    for line in output.splitlines():
        key, _, value = line.partition("\t")
        key = key.rstrip(":")
        seen[key] = f"{seen[key]}\n{value}" if key in seen else value
    return seen


def verdicts(box: Mapping[str, str], host: Mapping[str, str]) -> dict[str, str]:
    """`held`, `open` or `indeterminate` for each wall."""
    return {wall.what: _verdict(wall, box, host) for wall in WALLS}


def _verdict(wall: Wall, box: Mapping[str, str], host: Mapping[str, str]) -> str:
    controls_hold = box.get(wall.control_inside) == "open" and (wall.control is None or host[wall.control] == "open")
    if not controls_hold:
        return "indeterminate"
    return "held" if wall.stands(box, host) else "open"


def inspect(filters: Filters, names: set[str]) -> dict[str, dict[str, str]]:
    """Verdicts by contender, of those named that have walls at all."""
    with bait() as host_bait:
        host = read(_output(host_bait, host_bait.script(host_bait.secret_file)))
        return {name: verdicts(read(run(host_bait, filters)), host) for name, run in INSPECTED.items() if name in names}


def _output(bait: Bait, argv: list[str], *pass_fds: int) -> str:
    done = subprocess.run(
        argv,
        # Not the host's /dev/null, which crun gives to the container's user.
        input="",
        capture_output=True,
        text=True,
        check=False,
        pass_fds=(bait.descriptor, *pass_fds),
    )
    if not done.stdout:
        raise NothingSeen(f"{argv[0]}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _floor(bait: Bait, filters: Filters) -> str:
    return _output(bait, peers.floor_run(filters, bait.script("/.sentinel")))


def _bwrap(bait: Bait, filters: Filters) -> str:
    with filters.program.open("rb") as program:
        # Its root has nothing to stand outside of a rule but what every box has.
        return _output(bait, peers.bwrap_argv(program.fileno(), bait.script("/proc/version")), program.fileno())


def _immure(bait: Bait, _: Filters) -> str:
    from immure import run

    return run(bait.script("/.immure/sentinel"), level="L2").stdout.text()


def _rival(rival: Rival, bait: Bait, _: Filters) -> str:
    assert rival.box is not None
    with rival.box(bait.script("/proc/version")) as argv:
        return _output(bait, [*rival.around, *argv])


def _sandlock(bait: Bait, _: Filters) -> str:
    import sandlock

    # It shows the host's files, and yet opens none but those of its rules.
    return sandlock.Sandbox(**SANDLOCK).run(bait.script("/etc/passwd")).stdout.decode()


INSPECTED = {
    "floor": _floor,
    "bwrap": _bwrap,
    "immure": _immure,
    **{rival.name: partial(_rival, rival) for rival in RIVALS if rival.box is not None and rival.found()},
    "sandlock": _sandlock,
}
