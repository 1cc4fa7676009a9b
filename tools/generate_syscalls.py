"""Write `src/immure/policy/seccomp/data/syscalls.json` from the PyPI package `system-calls`.

    pip install system-calls && python tools/generate_syscalls.py

The package holds what current kernels implement. Calls that were removed from the kernel's tables are added
here from older headers: a profile that names one must still reach its number, since an older kernel has it.
"""

from __future__ import annotations

import json
from pathlib import Path

import system_calls

TARGET = Path(__file__).parents[1] / "src/immure/policy/seccomp/data/syscalls.json"

X32_BIT = 0x40000000

PACKAGE_NAMES = {
    "x86_64": "x86_64",
    "i386": "i386",
    "x32": "x32",
    "aarch64": "arm64",
    "arm": "arm",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "s390": "s390",
    "ppc64le": "powerpc64",
    "loongarch64": "loongarch64",
}

_LEGACY_64 = {"getpmsg": 181, "putpmsg": 182, "afs_syscall": 183, "tuxcall": 184, "security": 185}
_LEGACY_32 = {"uselib": 86, "bdflush": 134, "_sysctl": 149}
_S390 = {
    "idle": 112,
    "create_module": 127,
    "get_kernel_syms": 130,
    "afs_syscall": 137,
    "query_module": 167,
    "nfsservctl": 169,
    "getpmsg": 188,
    "putpmsg": 189,
    **_LEGACY_32,
}

# Linux 6.1's uapi headers, `unistd_64.h`, `unistd_32.h`, `unistd_x32.h` and their kin.
RETIRED: dict[str, dict[str, int]] = {
    "x86_64": {
        "uselib": 134,
        "_sysctl": 156,
        "create_module": 174,
        "get_kernel_syms": 177,
        "query_module": 178,
        "nfsservctl": 180,
        "vserver": 236,
        **_LEGACY_64,
    },
    "x32": {name: X32_BIT | number for name, number in _LEGACY_64.items()},
    "i386": {
        "break": 17,
        "stty": 31,
        "gtty": 32,
        "ftime": 35,
        "prof": 44,
        "lock": 53,
        "mpx": 56,
        "ulimit": 58,
        "profil": 98,
        "idle": 112,
        "create_module": 127,
        "get_kernel_syms": 130,
        "afs_syscall": 137,
        "query_module": 167,
        "nfsservctl": 169,
        "getpmsg": 188,
        "putpmsg": 189,
        "vserver": 273,
        **_LEGACY_32,
    },
    "aarch64": {"nfsservctl": 42},
    "riscv64": {"nfsservctl": 42},
    "loongarch64": {"nfsservctl": 42},
    "arm": {"nfsservctl": 169, "vserver": 313, "arm_sync_file_range": 341, **_LEGACY_32},
    "s390x": _S390,
    "s390": _S390,
    "ppc64le": {
        "break": 17,
        "stty": 31,
        "gtty": 32,
        "ftime": 35,
        "prof": 44,
        "lock": 53,
        "mpx": 56,
        "ulimit": 58,
        "profil": 98,
        "idle": 112,
        "create_module": 127,
        "get_kernel_syms": 130,
        "afs_syscall": 137,
        "query_module": 166,
        "nfsservctl": 168,
        "getpmsg": 187,
        "putpmsg": 188,
        "tuxcall": 225,
        **_LEGACY_32,
    },
}


def tables() -> dict[str, dict[str, int]]:
    """Call numbers by ABI and name; what the package has wins over RETIRED."""
    package = system_calls.syscalls()
    found: dict[str, dict[str, int]] = {}
    for abi, package_name in PACKAGE_NAMES.items():
        current: dict[str, int] = {}
        for name in package.names():
            try:
                current[name] = package.get(name, package_name)
            except system_calls.NotSupportedSystemCall:
                continue
        found[abi] = RETIRED.get(abi, {}) | current
    return found


def main() -> None:
    """One line per ABI, numbers in the order of `names`, so that a new kernel shows as a readable diff."""
    by_abi = tables()
    names = sorted({name for table in by_abi.values() for name in table})
    linux = json.dumps(system_calls.syscalls().linux_version)
    rows = [
        f"    {json.dumps(abi)}: {json.dumps([table.get(name) for name in names], separators=(',', ':'))}"
        for abi, table in by_abi.items()
    ]
    body = ",\n".join(rows)
    TARGET.write_text(f'{{\n  "linux": {linux},\n  "names": {json.dumps(names)},\n  "numbers": {{\n{body}\n  }}\n}}\n')


if __name__ == "__main__":
    main()
