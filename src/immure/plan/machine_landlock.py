"""Landlock within a machine, whose kernel nobody has asked: our init enters as much as that kernel knows. Pure."""

from __future__ import annotations

from immure.host.facts import SourceFacts
from immure.plan.image import SENTINEL, Image
from immure.plan.operations import Landlock, LandlockAbi, LandlockRule
from immure.plan.root import landlock_rules
from immure.policy.landlock import LEAST_ABI, NEWEST_ABI, Fs, compile_ruleset, handled_fs, scopes
from immure.spec.models import SandboxSpec

#: Everybody may read it, and no rule covers it.
UNCOVERED = "/.immure/uncovered"


def landlock_within(spec: SandboxSpec, image: Image, sources: tuple[SourceFacts, ...]) -> Landlock | None:
    """The domain of the machine's commands, None where it is switched off.

    Where the spec requires it, a kernel that has too little of it makes no box; else it does without.
    """
    if spec.files.landlock == "off":
        return None
    # What attests the box opens it.
    rules = (*landlock_rules(spec, image, sources), (f"/{SENTINEL}", Fs.READ_FILE))
    newest = compile_ruleset(NEWEST_ABI, rules)
    return Landlock(
        handled_fs=newest.handled_fs,
        handled_net=0,
        scoped=newest.scoped,
        rules=tuple(LandlockRule(path=path, access=access) for path, access in newest.rules),
        sentinel=UNCOVERED,
        abis=tuple(
            LandlockAbi(abi=abi, handled_fs=int(handled_fs(abi)), scoped=int(scopes(abi)))
            for abi in range(LEAST_ABI, NEWEST_ABI + 1)
        ),
        optional=spec.protections.get("landlock") != "required",
    )
