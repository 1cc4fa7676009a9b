"""Judges a box with a kernel in user space: the outer box by the host's readback, the workload by probes within.

What is seen from within is the Sentry's word, and counts only for what the Sentry is to enforce; that it is a Sentry
which answers is shown from the host: nothing but runsc runs in the outer box, under filters of its own. Pure, and
standard library only. Formats: proc(5), seccomp(2); errors as in errno(3).
"""

from __future__ import annotations

from immure.evidence.readback import Finding, find_capabilities, find_namespaces, find_no_host_root, status_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EPERM, _ENOENT, _EACCES, _ENOTDIR, _EINVAL, _EROFS, _ENETUNREACH, _EHOSTUNREACH = 1, 2, 13, 20, 22, 30, 101, 113
#: system, release, version and machine, as the attestation tells them.
_UNAME_PARTS = 4
_NO_WAY = frozenset((_ENETUNREACH, _EHOSTUNREACH))
_NO_PATH = frozenset((_ENOENT, _EACCES, _EPERM, _ENOTDIR))


def judge_sentry(
    items: dict[str, bytes], expected: dict[str, Any], host_namespaces: dict[str, int]
) -> tuple[Finding, ...]:
    """A finding for every part of the levels, and `kernel.user_space`.

    `items` are those of the outer box's witness, `inside/…` of the attestation within and `sentry/PID/…` of what runs
    in the outer box. What could not be read does not hold.
    """
    inside = _inside(items)
    outer = dict(status_lines(items.get("status", b"")))
    return (
        _filters(items, inside, expected),
        Finding(
            "identity.no_new_privs",
            inside.get("NoNewPrivs") == outer.get("NoNewPrivs") == "1",
            f"{inside.get('NoNewPrivs')} in the Sentry, {outer.get('NoNewPrivs')} around it",
            "wanted 1 in both",
        ),
        _capabilities(inside, outer, expected),
        _files(items),
        find_no_host_root(items, expected),
        *(_with_attempts(one, items, expected) for one in find_namespaces(items, host_namespaces)),
        _kernel(items, expected),
    )


def _inside(items: dict[str, bytes]) -> dict[str, str]:
    """The lines of a status that matter; what the Sentry's does not have, asked for by prctl(2)."""
    found = dict(status_lines(items.get("inside/status", b"")))
    if "inside/no_new_privs" in items:
        found.setdefault("NoNewPrivs", items["inside/no_new_privs"].decode("ascii", "replace"))
    if "inside/ambient" in items:
        found.setdefault("CapAmb", items["inside/ambient"].decode("ascii", "replace"))
    elif items.get("inside/ambient.errno") == _EINVAL.to_bytes(4, "little"):
        # It has no such set.
        found.setdefault("CapAmb", "0")
    return found


def _attempt(items: dict[str, bytes], name: str) -> int | None:
    value = items.get(f"inside/{name}")
    return int.from_bytes(value, "little", signed=True) if value is not None and len(value) == 4 else None


def _filters(items: dict[str, bytes], inside: dict[str, str], expected: dict[str, Any]) -> Finding:
    part = "syscalls.default_deny"
    if not expected["default_deny"]:
        return Finding(
            part, False, "a filter that allows by default", "the profile's default action lets calls through"
        )
    asked = [name for name in ("unknown_call", "setuid_mode", "user_namespace") if expected[name] is not None]
    answers = {name: _attempt(items, f"attempt/{name}") for name in asked}
    held = inside.get("Seccomp") == "2" and all(answers[name] == expected[name] for name in asked)
    observed = f"Seccomp: {inside.get('Seccomp')} in the Sentry, calls that are denied gave {list(answers.values())}"
    wanted = [expected[name] for name in asked]
    return Finding(part, held, observed, f"the Sentry does not answer by the filter, which gives {wanted}")


def _capabilities(inside: dict[str, str], outer: dict[str, str], expected: dict[str, Any]) -> Finding:
    part = "identity.capabilities"
    within = find_capabilities(inside, expected["keep_capabilities"], own_user_namespace=True)
    around = find_capabilities(outer, expected["outer_capabilities"], own_user_namespace=True)
    observed = f"in the Sentry {within.observed}; around it {around.observed}, in a user namespace of its own"
    return Finding(part, within.held and around.held, observed, within.why or around.why)


def _files(items: dict[str, bytes]) -> Finding:
    """The Sentry is the reference monitor: what is not mounted is not there, and the image can't be written."""
    outside = [_attempt(items, f"attempt/{name}") for name in ("outside_file", "outside_by_root")]
    shown = [_attempt(items, f"control/{name}") for name in ("outside_file", "outside_by_root")]
    written, control = _attempt(items, "attempt/write_image"), _attempt(items, "control/write_image")
    observed = f"a file outside {outside} (one inside {shown}), the image written {written} (own space {control})"
    held = (
        all(one in _NO_PATH for one in outside)
        and shown == [0, 0]
        and control == 0
        and written in (_EROFS, _EACCES, _EPERM)
        and items.get("inside/outer_opens") == b"1"
    )
    return Finding("files.mac", held, observed, "what the Sentry mounts is not all that can be reached")


def _with_attempts(found: Finding, items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    """The namespaces are the outer box's; what can be tried within is tried too."""
    if found.part != "network.namespace":
        return found
    seen, control = _attempt(items, "attempt/network"), _attempt(items, "control/network")
    interfaces = sorted(items.get("inside/interfaces", b"").decode("ascii", "replace").split())
    # Where the filter lets nobody have a socket, there is no attempt to make either.
    denied = expected["denied_controls"].get("network")
    tried = (seen in _NO_WAY and control == 0) or (denied is not None and seen == control == denied)
    held = found.held and tried and interfaces == ["lo"]
    observed = f"{found.observed}; in the Sentry {' '.join(interfaces)}, another host {seen}, itself {control}"
    return Finding(found.part, held, observed, "the Sentry reaches a network")


def _kernel(items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    """Another kernel answers within, and on the host there is nothing that this one could run."""
    part = "kernel.user_space"
    uname = items.get("inside/uname", b"").split(b"\0")
    release = uname[1] if len(uname) == _UNAME_PARTS else b""
    host = items.get("host/uname", b"").split(b"\0")
    # A process may have its kernel give another release (personality(2)), and no other version.
    other = bool(release) and len(host) == 2 and all(host) and release != host[0] and uname[2] != host[1]
    processes = sorted({name.split("/")[1] for name in items if name.startswith("sentry/")})
    programs = {items.get(f"sentry/{pid}/exe", b"?") for pid in processes}
    unfiltered = [pid for pid in processes if _seccomp(items, pid) != "2"]
    sentries = [pid for pid in processes if b"\0boot\0" in items.get(f"sentry/{pid}/cmdline", b"")]
    loose = [pid for pid in sentries if items.get(f"sentry/{pid}/lets", b"?") not in (b"nothing", b"unread")]
    shown = release.decode("ascii", "replace")
    carriers = b" ".join(sorted(programs)).decode("ascii", "replace")
    unread = any(items.get(f"sentry/{pid}/lets") == b"unread" for pid in sentries)
    filters = "filters unread" if unread else "filters read back"
    observed = f"{shown} within; on the host {len(processes)} processes of {carriers}, the Sentry's {filters}"
    why = "on the host something else than runsc runs in the box"
    held = programs == {expected["runsc"].encode()} and len(sentries) == 1
    if held and unfiltered:
        held, why = False, f"process {unfiltered[0]} of runsc has no filter"
    if held and loose:
        held, why = (
            False,
            f"the Sentry's filter lets through {items.get(f'sentry/{loose[0]}/lets', b'?').decode('ascii', 'replace')}",
        )
    if held and not other:
        held, why = False, "the workload sees this host's kernel"
    return Finding(part, held, observed, why)


def _seccomp(items: dict[str, bytes], pid: str) -> str | None:
    return dict(status_lines(items.get(f"sentry/{pid}/status", b""))).get("Seccomp")
