"""Judges what the kernel said of a witness: a process that has passed the last stage and not yet its execve.

Pure: the readback is a dict of raw bytes, as the native program read them. Standard library only: every box
passes through here. Formats: proc(5), user_namespaces(7), seccomp(2).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from typing import Any

_EACCES = 13
#: Before it, truncation is out of Landlock's reach.
_LEAST_LANDLOCK_ABI = 3

#: Namespaces that must differ from the host's, and the part that each shows.
_NAMESPACE_PARTS = (
    ("ns/mnt", "files.mount_namespace"),
    ("ns/net", "network.namespace"),
    ("ns/pid", "processes.pid_namespace"),
    ("ns/ipc", "processes.ipc_namespace"),
    ("ns/uts", "processes.uts_namespace"),
    ("ns/user", "identity.user_namespace"),
)
_STATUS_LINES = (
    b"NoNewPrivs",
    b"Seccomp",
    b"Seccomp_filters",
    b"CapInh",
    b"CapPrm",
    b"CapEff",
    b"CapBnd",
    b"CapAmb",
)
_CAPABILITY_LINES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class Finding:
    """One part: whether it holds, and what was seen. `why` says what is missing."""

    __slots__ = ("held", "observed", "part", "why")

    def __init__(self, part: str, held: bool, observed: str, why: str = "") -> None:
        self.part = part
        self.held = held
        self.observed = observed
        self.why = "" if held else why


def judge(items: dict[str, bytes], expected: dict[str, Any], host_namespaces: dict[str, int]) -> list[Finding]:
    """A finding for every part of the levels.

    `expected` is the plan's (`Launch.expected`), `host_namespaces` the engine's own inode numbers by name. What
    could not be read does not hold.
    """
    status = _status(items.get("status", b""))
    findings = [
        _filters(items, status, expected),
        _equals("identity.no_new_privs", status.get("NoNewPrivs", ""), "1"),
        _capabilities(status, items, expected, host_namespaces),
        _mac(items, expected),
        _no_host_root(items, expected),
    ]
    for name, part in _NAMESPACE_PARTS:
        findings.append(_namespace(part, items.get(name), host_namespaces.get(name)))
    return findings


def held_parts(findings: list[Finding]) -> frozenset[str]:
    """The parts that hold."""
    return frozenset(finding.part for finding in findings if finding.held)


def _status(text: bytes) -> dict[str, str]:
    """The lines that matter, by name: the whole would cost more than all the rest of the judgement."""
    found: dict[str, str] = {}
    for name in _STATUS_LINES:
        start = text.find(b"\n" + name + b":")
        if start >= 0:
            start += len(name) + 2
            end = text.find(b"\n", start)
            if end >= 0:
                found[name.decode()] = text[start:end].decode("ascii", "replace").strip()
    return found


def _equals(part: str, observed: str, wanted: str) -> Finding:
    return Finding(part, observed == wanted, observed, f"wanted {wanted}")


def _filters(items: dict[str, bytes], status: dict[str, str], expected: dict[str, Any]) -> Finding:
    part = "syscalls.default_deny"
    wanted = expected["filters"]
    if not expected["default_deny"]:
        return Finding(
            part, False, "a filter that allows by default", "the profile's default action lets calls through"
        )
    if status.get("Seccomp") != "2":
        return Finding(part, False, f"Seccomp: {status.get('Seccomp')}", "no filter is installed")
    count = len(wanted)
    if "filter/0" not in items:
        # A plain user may not read filters back; the kernel still says how many there are.
        held = status.get("Seccomp_filters") == str(count)
        return Finding(part, held, f"{status.get('Seccomp_filters')} filters, unread", f"wanted {count} filters")
    seen = tuple(items.get(f"filter/{index}", b"") for index in range(count))
    alone = f"filter/{count}" not in items and status.get("Seccomp_filters", str(count)) == str(count)
    held = seen == wanted and alone
    sizes = "+".join(str(len(program) // 8) for program in seen)
    return Finding(
        part, held, f"filters of {sizes} instructions, read back", "the installed filters are not the plan's"
    )


def _capabilities(
    status: dict[str, str],
    items: dict[str, bytes],
    expected: dict[str, Any],
    host_namespaces: dict[str, int],
) -> Finding:
    part = "identity.capabilities"
    seen = {name: status.get(name, "") for name in _CAPABILITY_LINES}
    keep = expected["keep_capabilities"]
    own = _namespace("", items.get("ns/user"), host_namespaces.get("ns/user")).held
    try:
        masks = [int(value, 16) for value in seen.values()]
    except ValueError:
        return Finding(part, False, repr(seen), "the capability sets can't be read")
    inheritable, permitted, effective, bounding, ambient = masks
    have = inheritable | permitted | effective | ambient
    # In the host's own user namespace nothing may be held; the bounding set, which a plain user can't lower, gives
    # nothing to a process with no_new_privs.
    if own:
        held = (have | bounding) & ~keep == 0
    else:
        held = have == 0 and (bounding == 0 or status.get("NoNewPrivs") == "1")
    observed = f"effective {effective:#x}, bounding {bounding:#x}"
    return Finding(
        part,
        held,
        observed,
        f"wanted at most {keep:#x}, and none in the host's user namespace",
    )


def _mac(items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    """Landlock can't be read back: a file that no rule covers opened before the domain was entered, not after."""
    part = "files.mac"
    abi = expected["landlock_abi"]
    if abi < _LEAST_LANDLOCK_ABI:
        observed = f"landlock/{abi}" if abi else "no Landlock"
        return Finding(
            part, False, observed, f"file control is Landlock from ABI {_LEAST_LANDLOCK_ABI} on, or AppArmor"
        )
    before, after = _number(items.get("sentinel.before")), _number(items.get("sentinel.after"))
    observed = f"landlock/{abi}, sentinel {before} then {after}"
    return Finding(part, before == 0 and after == _EACCES, observed, "the sentinel was not stopped by Landlock")


def _no_host_root(items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    part = "identity.no_host_root"
    maps = [items.get("uid_map"), items.get("gid_map")]
    rows: list[list[int]] = []
    for content in maps:
        lines = (content or b"").split(b"\n")
        try:
            found = [[int(word) for word in line.split()] for line in lines if line.strip()]
        except ValueError:
            found = []
        if not found or any(len(row) != 3 for row in found):
            return Finding(part, False, repr(content), "the id map can't be read")
        rows += found
    root = expected["host_root_id"]
    held = root is None or not any(host <= root < host + count for _, host, count in rows)
    observed = ", ".join(f"{inside}→{host} ({count})" for inside, host, count in rows)
    return Finding(part, held, observed, "an id of the box is host root")


def _namespace(part: str, seen: bytes | None, host: int | None) -> Finding:
    inode = _inode(seen)
    held = inode is not None and host is not None and inode != host
    return Finding(part, held, "own" if held else "the host's or unknown", "not a namespace of its own")


def _inode(value: bytes | None) -> int | None:
    return int.from_bytes(value, "little") if value is not None and len(value) == 8 else None


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "little", signed=True) if value is not None and len(value) == 4 else -1
