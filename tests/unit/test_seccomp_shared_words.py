"""Words that are loaded once for several comparisons, also where a comparison between them decides nothing."""

from __future__ import annotations

import json

import pytest

from immure.policy.seccomp import Call, compile_filter, evaluate, parse_profile, run
from immure.policy.seccomp.actions import encode

_VALUES = (0, 1, 3, 0xFFFF_FFFF, 1 << 32, (1 << 32) | 1)


def _arg(index: int, op: str, value: int, value_two: int = 0) -> dict[str, object]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": value_two}


#: In the first, where the high word is 0 all intervals of the low one end alike, and what follows looks at it again.
_PROFILES = [
    [
        ("KILL", [_arg(0, "NE", 0), _arg(0, "NE", 1)]),
        ("KILL_PROCESS", [_arg(1, "EQ", 1 << 32), _arg(1, "MASKED_EQ", 1), _arg(0, "NE", 0)]),
        ("TRAP", [_arg(0, "LE", 0), _arg(1, "LE", 1)]),
    ],
    [("ERRNO", [_arg(1, "MASKED_EQ", 1, 1)]), ("TRAP", [_arg(1, "MASKED_EQ", 1), _arg(0, "GT", 1)])],
]


@pytest.mark.parametrize("rules", _PROFILES, ids=["intervals", "masks"])
def test_the_program_is_the_reference(rules: list[tuple[str, list[dict[str, object]]]]) -> None:
    profile = parse_profile(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["read"], "action": f"SCMP_ACT_{action}", "args": args} for action, args in rules
                ],
            }
        )
    )
    program = compile_filter(profile).instructions
    for first in _VALUES:
        for second in _VALUES:
            decision = evaluate(profile, Call("x86_64", 0, (first, second)))
            got, _ = run(program, nr=0, arch=0xC000_003E, args=(first, second, 0, 0, 0, 0))
            assert got == encode(decision.action, decision.errno), (first, second)
