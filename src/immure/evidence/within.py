"""What a box with a kernel of its own says of itself: the attestation of a process that has passed the last stage.

It is that kernel's word, and counts only for what that kernel is to enforce. Pure, and standard library only. Formats:
proc(5), seccomp(2); errors as in errno(3).
"""

from __future__ import annotations

from immure.evidence.readback import Finding, find_capabilities, status_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EPERM, _ENOENT, _EACCES, _ENOTDIR, _EINVAL, _EROFS, _ENETUNREACH, _EHOSTUNREACH = 1, 2, 13, 20, 22, 30, 101, 113
#: system, release, version and machine.
_UNAME_PARTS = 4
#: A UUID as text.
_BOOT_ID_BYTES = 36
_NO_WAY = frozenset((_ENETUNREACH, _EHOSTUNREACH))
_NO_PATH = frozenset((_ENOENT, _EACCES, _EPERM, _ENOTDIR))


def status_within(items: dict[str, bytes]) -> dict[str, str]:
    """The lines of a status that matter; what that kernel's does not have, asked for by prctl(2)."""
    found = dict(status_lines(items.get("inside/status", b"")))
    if "inside/no_new_privs" in items:
        found.setdefault("NoNewPrivs", items["inside/no_new_privs"].decode("ascii", "replace"))
    if "inside/ambient" in items:
        found.setdefault("CapAmb", items["inside/ambient"].decode("ascii", "replace"))
    elif items.get("inside/ambient.errno") == _EINVAL.to_bytes(4, "little"):
        # It has no such set.
        found.setdefault("CapAmb", "0")
    return found


def attempt(items: dict[str, bytes], name: str) -> int | None:
    """What came of it: 0, an errno, or minus a signal; None where it was not told."""
    value = items.get(f"inside/{name}")
    return int.from_bytes(value, "little", signed=True) if value is not None and len(value) == 4 else None


def find_filters(items: dict[str, bytes], inside: dict[str, str], expected: dict[str, Any], where: str) -> Finding:
    """That calls are answered as the plan's filters answer them. `where` is `the Sentry` or `the machine`."""
    part = "syscalls.default_deny"
    if not expected["default_deny"]:
        return Finding(
            part, False, "a filter that allows by default", "the profile's default action lets calls through"
        )
    asked = [name for name in ("unknown_call", "setuid_mode", "user_namespace") if expected[name] is not None]
    answers = {name: attempt(items, f"attempt/{name}") for name in asked}
    held = inside.get("Seccomp") == "2" and all(answers[name] == expected[name] for name in asked)
    observed = f"Seccomp: {inside.get('Seccomp')} in {where}, calls that are denied gave {list(answers.values())}"
    wanted = [expected[name] for name in asked]
    return Finding(part, held, observed, f"{where} does not answer by the filter, which gives {wanted}")


def find_capabilities_within(
    inside: dict[str, str], outer: dict[str, str], expected: dict[str, Any], around: int, where: str
) -> Finding:
    """The sets on both sides; `around` are those that the outer box keeps."""
    within = find_capabilities(inside, expected["keep_capabilities"], own_user_namespace=True)
    outside = find_capabilities(outer, around, own_user_namespace=True)
    observed = f"in {where} {within.observed}; around it {outside.observed}, in a user namespace of its own"
    return Finding("identity.capabilities", within.held and outside.held, observed, within.why or outside.why)


def find_no_new_privs(inside: dict[str, str], outer: dict[str, str], where: str) -> Finding:
    """Set on both sides."""
    seen = inside.get("NoNewPrivs"), outer.get("NoNewPrivs")
    observed = f"{seen[0]} in {where}, {seen[1]} around it"
    return Finding("identity.no_new_privs", seen == ("1", "1"), observed, "wanted 1 in both")


def find_files(items: dict[str, bytes], where: str) -> Finding:
    """That kernel is the reference monitor: what is not mounted is not there, and the image can't be written."""
    outside = [attempt(items, f"attempt/{name}") for name in ("outside_file", "outside_by_root")]
    shown = [attempt(items, f"control/{name}") for name in ("outside_file", "outside_by_root")]
    written, control = attempt(items, "attempt/write_image"), attempt(items, "control/write_image")
    observed = f"a file outside {outside} (one inside {shown}), the image written {written} (own space {control})"
    held = (
        all(one in _NO_PATH for one in outside)
        and shown == [0, 0]
        and control == 0
        and written in (_EROFS, _EACCES, _EPERM)
        and items.get("inside/outer_opens") == b"1"
    )
    return Finding("files.mac", held, observed, f"what {where} mounts is not all that can be reached")


def with_attempts(
    found: Finding, items: dict[str, bytes], expected: dict[str, Any], where: str, ends: frozenset[str] = frozenset()
) -> Finding:
    """The namespaces are the outer box's; what can be tried within is tried too. `ends` are interfaces to nowhere."""
    if found.part != "network.namespace":
        return found
    seen, control = attempt(items, "attempt/network"), attempt(items, "control/network")
    told = items.get("inside/interfaces", b"").decode("ascii", "replace").split()
    interfaces = sorted(one for one in told if one not in ends)
    # Where the filter lets nobody have a socket, there is no attempt to make either.
    denied = expected["denied_controls"].get("network")
    tried = (seen in _NO_WAY and control == 0) or (denied is not None and seen == control == denied)
    held = found.held and tried and interfaces == ["lo"]
    observed = f"{found.observed}; in {where} {' '.join(interfaces)}, another host {seen}, itself {control}"
    return Finding(found.part, held, observed, f"{where} reaches a network")


def _uname(items: dict[str, bytes]) -> tuple[list[bytes], bytes]:
    uname = items.get("inside/uname", b"").split(b"\0")
    return uname, uname[1] if len(uname) == _UNAME_PARTS else b""


def release_within(items: dict[str, bytes]) -> str:
    """The release that is told within, or nothing."""
    return _uname(items)[1].decode("ascii", "replace")


def other_kernel(items: dict[str, bytes]) -> tuple[str, bool]:
    """The release that is told within, and whether it is another kernel than this host's."""
    uname, release = _uname(items)
    host = items.get("host/uname", b"").split(b"\0")
    # A process may have its kernel give another release (personality(2)), and no other version.
    other = bool(release) and len(host) == 2 and all(host) and release != host[0] and uname[2] != host[1]
    return release.decode("ascii", "replace"), other


def other_boot(items: dict[str, bytes]) -> bool:
    """Whether it is another start of a kernel than this host's, which may be of the same release. Both must say: each
    start has a random UUID. random(4).
    """
    within, host = (items.get(f"{side}/boot_id", b"").strip() for side in ("inside", "host"))
    return len(within) == len(host) == _BOOT_ID_BYTES and within != host
