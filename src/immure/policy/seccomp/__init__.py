"""System call filters: profiles read, checked, compiled and evaluated, exactly and without I/O.

profile = parse_profile(text)          # or load_preset("default"), guard_profile()
check_profile(profile)                 # what is odd about it
compile_filter(profile).to_bytes()     # what the kernel takes
evaluate(profile, Call("x86_64", 41, (40, 1, 0)))
compare(profile, load_preset("default"))   # exactly, with a witness for each difference
"""

from __future__ import annotations

from .abi import ABIS, Abi
from .actions import Action
from .asking import asking
from .bpf import Instruction, constant_allow, outcomes, run
from .compare import Answer, Comparison, Difference, compare
from .compile import compile_filter
from .disassemble import disassemble
from .evaluate import Call, Decision, Reference, evaluate
from .filter import MAX_INSTRUCTIONS, Filter
from .findings import Finding, check_profile
from .guard import guard_profile
from .learn import MAX_VALUES, Observed, Recorder, learned_profile, refusal
from .lint import lint_profile
from .merge import merge
from .minimise import minimise
from .parse import parse_profile
from .partial import Outcome, outcomes_of
from .preset import PRESETS, Presets, load_preset, nearest_preset, preset_text
from .profile import Architecture, ArchMap, Arg, Flag, Operator, Profile, Rule, Scope
from .source_lines import rule_lines
from .syscalls import name_of, numbers
from .trace import TRACE_SCHEMA, Changed, TraceCall, TraceHeader, changed_calls, read_trace

__all__ = [
    "ABIS",
    "MAX_INSTRUCTIONS",
    "MAX_VALUES",
    "PRESETS",
    "TRACE_SCHEMA",
    "Abi",
    "Action",
    "Answer",
    "ArchMap",
    "Architecture",
    "Arg",
    "Call",
    "Changed",
    "Comparison",
    "Decision",
    "Difference",
    "Filter",
    "Finding",
    "Flag",
    "Instruction",
    "Observed",
    "Operator",
    "Outcome",
    "Presets",
    "Profile",
    "Recorder",
    "Reference",
    "Rule",
    "Scope",
    "TraceCall",
    "TraceHeader",
    "asking",
    "changed_calls",
    "check_profile",
    "compare",
    "compile_filter",
    "constant_allow",
    "disassemble",
    "evaluate",
    "guard_profile",
    "learned_profile",
    "lint_profile",
    "load_preset",
    "merge",
    "minimise",
    "name_of",
    "nearest_preset",
    "numbers",
    "outcomes",
    "outcomes_of",
    "parse_profile",
    "preset_text",
    "read_trace",
    "refusal",
    "rule_lines",
    "run",
]
