"""Writes `src/immure/engine/compiled_presets.json`: the filters of the presets, guard and all, for each architecture.

python tools/compile_presets.py            # write it
python tools/compile_presets.py --check    # exit 1 where it is not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from immure.engine.filters import SHIPPED_SINCE, Shipped, preset_sha256
from immure.plan.filters import compile_filters
from immure.policy.seccomp import PRESETS, load_preset
from immure.policy.seccomp.abi import FAMILIES

TARGET = Path(__file__).parents[1] / "src/immure/engine/compiled_presets.json"


def compiled_presets() -> bytes:
    """The file's content."""
    found = {
        f"{name}/{arch}": Shipped(
            preset_sha256(name), compile_filters(load_preset(name), arch=arch, kernel=SHIPPED_SINCE, keep=0)
        )
        for name in PRESETS
        for arch in FAMILIES
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def main() -> int:
    """Gives the exit status."""
    content = compiled_presets()
    if "--check" not in sys.argv[1:]:
        TARGET.write_bytes(content)
        return 0
    if TARGET.read_bytes() == content:
        return 0
    print(f"{TARGET.name} is not up to date: python tools/compile_presets.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
