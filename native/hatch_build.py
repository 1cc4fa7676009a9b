"""Builds the static `immure-init` with cargo and puts it, and the `immure` script, into the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs for wheels, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        program = build(root / "native")
        # Editable installs run from the source tree, so the program lies there in both cases.
        place = root / "src/immure/_native/immure-init"
        place.parent.mkdir(exist_ok=True)
        fresh = place.with_suffix(".new")
        shutil.copy2(program, fresh)
        fresh.chmod(0o755)
        fresh.rename(place)
        build_data["artifacts"].append("src/immure/_native/immure-init")
        build_data["shared_scripts"][str(root / "native/immure")] = "immure"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"


def build(native: Path) -> Path:
    """The program's path. Cargo's own target folder, unless CARGO_TARGET_DIR says otherwise, keeps it fresh."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise RuntimeError("building immure from source needs cargo (Rust 1.91 or newer) on PATH")
    subprocess.run([cargo, "build", "--release", "--locked"], cwd=native, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", native / "target"))
    found = sorted(target.glob("*/release/immure-init"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RuntimeError(f"cargo built no immure-init below {target}")
    return found[-1]
