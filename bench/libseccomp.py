"""libseccomp through ctypes: the filter that it makes of a profile's rules. See seccomp_rule_add(3)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from immure.policy.seccomp import ABIS, Abi, Operator
from immure.policy.seccomp.resolve import AbiPolicy

_OPTIMIZE, _TREE = 8, 2
_OPERATORS = {
    Operator.NE: 1,
    Operator.LT: 2,
    Operator.LE: 3,
    Operator.EQ: 4,
    Operator.GE: 5,
    Operator.GT: 6,
    Operator.MASKED_EQ: 7,
}


class _Condition(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class LibseccompError(Exception):
    """A call of the library failed: which, and the error number."""


def load() -> ctypes.CDLL:
    """The library. Raises OSError where it is not installed."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    for name in (
        "seccomp_release",
        "seccomp_arch_add",
        "seccomp_arch_remove",
        "seccomp_attr_set",
        "seccomp_export_bpf",
    ):
        getattr(library, name).argtypes = (ctypes.c_void_p, *([ctypes.c_uint32] * (2 if "attr" in name else 1)))
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_rule_add_exact_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Condition),
    )
    library.seccomp_rule_add_array.argtypes = library.seccomp_rule_add_exact_array.argtypes
    return library


def export(policies: Sequence[AbiPolicy], *, tree: bool) -> bytes:
    """The packed program for rules that are the same on all of these ABIs, the native one first."""
    library = load()
    context = library.seccomp_init(policies[0].default)
    if not context:
        raise LibseccompError("seccomp_init")
    try:
        for policy in policies[1:]:
            _checked("seccomp_arch_add", library.seccomp_arch_add(context, _token(policy.abi)))
        if tree:
            _checked("seccomp_attr_set", library.seccomp_attr_set(context, _OPTIMIZE, _TREE))
        for number, clauses in sorted(policies[0].clauses.items()):
            for clause in clauses:
                if clause.value == policies[0].default:
                    continue  # The library refuses rules that say what the default says.
                conditions = [
                    _Condition(one.index, _OPERATORS[one.op], one.value, one.value_two) for one in clause.conditions
                ]
                array = (_Condition * len(conditions))(*conditions)
                done = library.seccomp_rule_add_array(context, clause.value, number, len(conditions), array)
                _checked(f"seccomp_rule_add_array {number}", done)
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    file = os.memfd_create("filter")
    try:
        _checked("seccomp_export_bpf", library.seccomp_export_bpf(context, file))
        os.lseek(file, 0, os.SEEK_SET)
        with os.fdopen(os.dup(file), "rb") as reader:
            return reader.read()
    finally:
        os.close(file)


def _token(abi: Abi) -> int:
    """SCMP_ARCH_ of `seccomp.h.in`: the AUDIT_ARCH; x32's has another machine."""
    return 0x4000_003E if abi is ABIS["x32"] else abi.audit


def _checked(what: str, status: int) -> None:
    if status < 0:
        raise LibseccompError(f"{what}: {os.strerror(-status)}")
