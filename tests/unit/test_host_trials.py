"""Why this user has no user namespaces."""

from __future__ import annotations

import errno

import pytest

from immure.host.trials import is_chroot, why_no_user_namespaces

AT_HOME = """\
23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
24 23 0:21 / /proc rw,nosuid shared:12 - proc proc rw
"""
IN_A_CHROOT = """\
101 100 0:48 / /proc rw,relatime - proc p rw
102 100 254:0 /usr /usr rw,relatime - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("mounts", "expected"), [(AT_HOME, False), (IN_A_CHROOT, True), ("", False), ("nonsense\n", False)]
)
def test_a_chroot_has_a_root_that_is_no_mount(mounts: str, expected: bool) -> None:
    assert is_chroot(mounts) is expected


def test_where_it_works_nothing_is_missing() -> None:
    assert why_no_user_namespaces(0, IN_A_CHROOT) is None


@pytest.mark.parametrize(
    ("number", "mounts", "have", "command"),
    [
        (errno.EPERM, AT_HOME, "Operation not permitted", "kernel.apparmor_restrict_unprivileged_userns=0"),
        (errno.EPERM, IN_A_CHROOT, "Operation not permitted, as always in a chroot", "systemd-nspawn"),
        (errno.ENOSPC, IN_A_CHROOT, "No space left on device", "user.max_user_namespaces"),
        (errno.ENOSYS, AT_HOME, "Function not implemented", "CONFIG_USER_NS"),
    ],
)
def test_the_reason_and_what_to_do(number: int, mounts: str, have: str, command: str) -> None:
    missing = why_no_user_namespaces(number, mounts)
    assert missing is not None
    assert missing.have == have
    assert missing.command is not None and command in missing.command
