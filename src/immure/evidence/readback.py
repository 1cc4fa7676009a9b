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
_USER = [name for name, _ in _NAMESPACE_PARTS].index("ns/user")
#: Items that are judged as they are.
_COMPARED = ("sentinel.", "uid_map", "gid_map", "filter/")
_STATUS_LINES = tuple(
    (name, f"\n{name}:".encode())
    for name in ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
)
_CAPABILITY_LINES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


#: Judgements by all that they depend on. There are few: boxes of one plan are much the same.
_judged: dict[tuple[object, ...], tuple[Finding, ...]] = {}
_MOST_JUDGED = 64


class Finding:
    """One part: whether it holds, and what was seen. `why` says what is missing. Not to be changed: it is shared."""

    __slots__ = ("held", "observed", "part", "why")

    def __init__(self, part: str, held: bool, observed: str, why: str = "") -> None:
        self.part = part
        self.held = held
        self.observed = observed
        self.why = "" if held else why


def judge(items: dict[str, bytes], expected: dict[str, Any], host_namespaces: dict[str, int]) -> tuple[Finding, ...]:
    """A finding for every part of the levels.

    `expected` is the plan's (`Launch.expected`), `host_namespaces` the engine's own inode numbers by name. What
    could not be read does not hold. Of two boxes of which the kernel says the same, the second costs a comparison.
    """
    status = status_lines(items.get("status", b""))
    own = tuple([_is_own(items.get(name), host_namespaces.get(name)) for name, _ in _NAMESPACE_PARTS])
    said = tuple([pair for pair in items.items() if pair[0].startswith(_COMPARED)])
    key = (status, own, said, tuple(expected.values()))
    known = _judged.get(key)
    if known is None:
        if len(_judged) >= _MOST_JUDGED:
            _judged.clear()
        known = _judged[key] = _judge(dict(status), own, dict(said), expected)
    return known


def _judge(
    status: dict[str, str], own: tuple[bool, ...], items: dict[str, bytes], expected: dict[str, Any]
) -> tuple[Finding, ...]:
    return (
        _filters(items, status, expected),
        _equals("identity.no_new_privs", status.get("NoNewPrivs", ""), "1"),
        find_capabilities(status, expected["keep_capabilities"], own_user_namespace=own[_USER]),
        _mac(items, expected),
        find_no_host_root(items, expected),
        *(_namespace(part, held) for (_, part), held in zip(_NAMESPACE_PARTS, own, strict=True)),
    )


def held_parts(findings: tuple[Finding, ...]) -> frozenset[str]:
    """The parts that hold."""
    return frozenset(finding.part for finding in findings if finding.held)


def status_lines(text: bytes) -> tuple[tuple[str, str], ...]:
    """The lines that matter, by name: the whole would cost more than all the rest of the judgement."""
    found: list[tuple[str, str]] = []
    for name, line in _STATUS_LINES:
        start = text.find(line)
        if start >= 0:
            start += len(line)
            end = text.find(b"\n", start)
            if end >= 0:
                found.append((name, text[start:end].decode("ascii", "replace").strip()))
    return tuple(found)


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


def find_capabilities(status: dict[str, str], keep: int, *, own_user_namespace: bool) -> Finding:
    """Whether no set has more than `keep`, and nothing at all that counts in the host's user namespace."""
    part = "identity.capabilities"
    seen = {name: status.get(name, "") for name in _CAPABILITY_LINES}
    try:
        masks = [int(value, 16) for value in seen.values()]
    except ValueError:
        return Finding(part, False, repr(seen), "the capability sets can't be read")
    inheritable, permitted, effective, bounding, ambient = masks
    have = inheritable | permitted | effective | ambient
    # In the host's own user namespace nothing may be held; the bounding set, which a plain user can't lower, gives
    # nothing to a process with no_new_privs.
    if own_user_namespace:
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


def find_no_host_root(items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    """Whether no id of the box is the host's root."""
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


def find_namespaces(items: dict[str, bytes], host_namespaces: dict[str, int]) -> tuple[Finding, ...]:
    """Whether each namespace is the box's own."""
    return tuple(
        _namespace(part, _is_own(items.get(name), host_namespaces.get(name))) for name, part in _NAMESPACE_PARTS
    )


def _namespace(part: str, held: bool) -> Finding:
    return Finding(part, held, "own" if held else "the host's or unknown", "not a namespace of its own")


def _is_own(seen: bytes | None, host: int | None) -> bool:
    """Whether an inode number was read, and is not the host's."""
    return seen is not None and len(seen) == 8 and host is not None and int.from_bytes(seen, "little") != host


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "little", signed=True) if value is not None and len(value) == 4 else -1
