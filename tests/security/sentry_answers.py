"""How a Sentry answers where Linux answers otherwise. Each line is right only because nothing was reached.

`OTHER_ERRORS` are errors beside those that the attempt declares itself. `ITS_OWN` are attempts that come to something
which is the Sentry's alone; each has a check that it is, and that nothing of the host was reached by it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import immure
from immure.host.tree import below
from security.attempt import Attempt
from security.report import Report

Check = Callable[[immure.Sandbox, Report], None]

# A pattern of attempts, and the errors.
OTHER_ERRORS = {
    # The Sentry lets a file be a device, and has none of that number.
    "devices.open_device_in_mount": "ENXIO",
    # It knows one way of scheduling.
    "identity.run_in_real_time": "EINVAL",
    "processes.schedule-*": "EINVAL",
    # It has no control group namespaces, and none of its namespaces tells of another.
    "namespaces.namespace_of_process-*-cgroup": "ENOENT",
    "namespaces.parent_namespace-*": "ENOTTY",
    # It has no process descriptors before 2025.
    "namespaces.enter_by_pidfd-*": "ENOSYS",
    "processes.send_signal_by_descriptor-*": "ENOSYS",
    "processes.hold_host": "ENOSYS",
    # Its own network stack, which has a loopback device alone.
    "network.firewall_rules": "EPROTONOSUPPORT",
    "network.bring_link_up_by_ioctl": "ENOTTY",
    "network.route-*": "EHOSTUNREACH",
    # Its /proc has no such file.
    "proc.write_switch-*": "ENOENT EIO",
    "proc.write_interrupt_affinity": "ENOENT",
    "proc.stack_and_call_of_process-*": "ENOENT",
    # It makes no files without a name.
    "setuid.by_fchmod_of_nameless_file": "ENOTSUP",
    # Nor flags of files, nor capabilities of files in a mount.
    "files.make_immutable": "ENOTTY",
    "setuid.file_capabilities": "ENOTSUP",
    "readonly.set_attribute": "ENOTSUP",
}


def other_errors(attempt: Attempt) -> frozenset[str]:
    return frozenset(
        word for pattern, words in OTHER_ERRORS.items() if fnmatchcase(attempt.name, pattern) for word in words.split()
    )


def its_own(attempt: Attempt) -> Check | None:
    return next((check for pattern, check in ITS_OWN.items() if fnmatchcase(attempt.name, pattern)), None)


def the_sentrys_own_devices(box: immure.Sandbox, report: Report) -> None:
    """Where the caller has one id, it owns the Sentry's /dev, which is in its memory."""
    assert report.detail in ("/dev", "['/dev']")
    mounted = box.exec(["/bin/grep", " /dev ", "/proc/self/mounts"]).stdout.split()
    assert mounted[2] in (b"dev", b"tmpfs"), mounted
    no_device_of_the_host(box, report)


def a_pipe_of_its_own(box: immure.Sandbox, report: Report) -> None:
    """What is on stdin comes to it through a pipe of the Sentry's; that the file is as it was the stage checks."""


def no_device_of_the_host(box: immure.Sandbox, report: Report) -> None:
    """What carries the Sentry has no device open but /dev/null."""
    if os.geteuid() != 0:
        return
    null = os.makedev(1, 3)
    for pid in below(box._box.pid):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = link.stat()
            except OSError:
                continue  # it has been closed meanwhile
            assert not stat.S_ISBLK(found.st_mode), link
            assert not stat.S_ISCHR(found.st_mode) or found.st_rdev == null, (link, link.readlink())


def no_device_behind_the_node(box: immure.Sandbox, report: Report) -> None:
    program = "import os; os.open('/tmp/node', os.O_RDONLY | os.O_NONBLOCK)"
    opened = box.exec(["/usr/bin/python3", "-I", "-c", program])
    assert "No such device or address" in opened.stderr.text()
    no_device_of_the_host(box, report)


def an_empty_folder(box: immure.Sandbox, report: Report) -> None:
    assert report.detail == "['/sys']"
    assert box.exec(["/bin/ls", "-A", "/sys"]).stdout == b""


def ids_of_the_sentry(box: immure.Sandbox, report: Report) -> None:
    """What the Sentry calls its root is nobody's root on the host."""
    carriers = below(box._box.pid)
    assert carriers
    for pid in carriers:
        for name in ("uid_map", "gid_map"):
            lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
            rows = [[int(word) for word in line.split()] for line in lines]
            assert rows
            assert not any(outside == 0 for _, outside, _ in rows), rows


def priority_of_the_host(box: immure.Sandbox, report: Report) -> None:
    """The Sentry notes what is asked for; on the host all of it is as it was."""
    for pid in below(box._box.pid):
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 0
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)


_ENTER = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
said = {}
for name in ("ipc", "mnt", "net", "pid", "user", "uts"):
    libc.setns(os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0)
    said[name] = errno.errorcode[ctypes.get_errno()]
print(json.dumps(said))
"""


def a_namespace_that_nobody_enters(box: immure.Sandbox, report: Report) -> None:
    """The Sentry's namespaces, one of each kind: everybody is in them."""
    said = json.loads(box.exec(["/usr/bin/python3", "-I", "-c", _ENTER]).stdout)
    assert set(said.values()) == {"EPERM"}


def nothing_to_know(box: immure.Sandbox, report: Report) -> None:
    """Of the first process's environment: it has none of the host's."""
    seen = box.exec(["/bin/cat", "/proc/1/environ"]).stdout
    assert set(seen.strip(b"\0").split(b"\0")) == {b"PATH=/usr/bin:/bin", b"HOME=/tmp"}


def own_addresses(box: immure.Sandbox, report: Report) -> None:
    """Of the first process's memory: where its program lies in the Sentry, and not the memory itself."""
    maps = box.exec(["/bin/cat", "/proc/1/maps"]).stdout.text()
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if len(line.split(maxsplit=5)) > 5}
    assert {path for path in paths if path.startswith("/") and not path.startswith("/dev/zero")} == {"/.immure/init"}
    assert box.exec(["/bin/dd", "if=/proc/1/mem", "of=/dev/null", "count=1"]).exit.code != 0


_OPEN_EACH = """
import errno, json, os
opened, closed = [], []
for number in os.listdir("/proc/1/fd"):
    for way in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        target = "unseen"
        try:
            target = os.readlink(f"/proc/1/fd/{number}")
            os.close(os.open(f"/proc/1/fd/{number}", way | os.O_NONBLOCK))
            opened.append(target)
        except OSError as error:
            assert error.errno in (errno.EACCES, errno.ENXIO, errno.EPERM, errno.ENODEV), error
            closed.append(target)
print(json.dumps([opened, closed]))
"""


def closed_descriptors(box: immure.Sandbox, report: Report) -> None:
    """Of the first process's descriptors: those that lead to the host stay shut.

    What can be opened are pipes of commands of the same user, which any of these may.
    """
    said = box.exec(["/usr/bin/python3", "-I", "-c", _OPEN_EACH])
    assert said.ok, said.stderr.text()
    opened, closed = json.loads(said.stdout)
    assert {target.partition(":")[0] for target in opened} <= {"/dev/null", "pipe"}
    leads = {target for target in closed if target.startswith("host:")}
    assert "unseen" in closed or len(leads) == 3, "its channel, and what it says"


ITS_OWN: dict[str, Check] = {
    # Devices of the Sentry's own, for those who may mount and make interfaces there.
    "devices.open_device-fuse": no_device_of_the_host,
    "devices.open_device-net-tun": no_device_of_the_host,
    "devices.create_in_dev": the_sentrys_own_devices,
    "readonly.write_to_base": the_sentrys_own_devices,
    # gVisor of 2024 lets everybody make a node in a file system of its own.
    "devices.make_device_in_private_space": no_device_behind_the_node,
    "files.host_mount_points": an_empty_folder,
    "files.stdin_for_writing": a_pipe_of_its_own,
    "identity.maps_root_of_the_host-*": ids_of_the_sentry,
    "identity.raise_priority": priority_of_the_host,
    "namespaces.namespace_of_process-*": a_namespace_that_nobody_enters,
    # gVisor of 2024 hides less of a process from others.
    "proc.environment_of_process-*": nothing_to_know,
    "proc.memory_map_of_process-*": own_addresses,
    "proc.descriptors_of_process-*": closed_descriptors,
    "processes.slow_down-*": priority_of_the_host,
    "processes.tie_to_processor-*": priority_of_the_host,
}
