"""System call filters: profiles read, checked, compiled and evaluated, exactly and without I/O."""

from __future__ import annotations

from .bpf import Instruction, constant_allow, run
from .compile import compile_filter
from .evaluate import Call, Decision, evaluate
from .filter import Filter
from .guard import guard_profile
from .parse import parse_profile
from .preset import PRESETS, load_preset
from .profile import Profile

__all__ = [
    "PRESETS",
    "Call",
    "Decision",
    "Filter",
    "Instruction",
    "Profile",
    "compile_filter",
    "constant_allow",
    "evaluate",
    "guard_profile",
    "load_preset",
    "parse_profile",
    "run",
]
