"""KVM as this host has it: tried with a guest, in a box and outside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from immure import run
from immure.engine.doctor import diagnose
from immure.host.kvm import DEVICE, try_kvm
from immure.host.native import native_program

pytestmark = pytest.mark.rootless
KINDS = ("hardware", "software", "emulating")


def has_device() -> bool:
    return os.access(DEVICE, os.R_OK | os.W_OK)


def test_it_is_told_by_what_it_does() -> None:
    facts = try_kvm()
    virtualises = bool({"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()))
    if not has_device() or os.uname().machine != "x86_64":
        assert facts.kind == "absent"
        assert facts.missing is not None
        assert facts.missing.command or os.uname().machine != "x86_64"
        return
    assert facts.kind in KINDS
    assert facts.turn_ns is not None
    # Two instructions: neither faster than any processor, nor slower than an emulator of one.
    assert facts.turn_ns < 100_000
    assert virtualises or facts.kind != "hardware"


def test_the_doctor_says_so() -> None:
    found, four = diagnose().kvm, diagnose().levels["L4"]
    assert found.kind == try_kvm().kind
    assert (found.missing in four.missing) == (found.kind != "hardware")


def test_a_box_has_none() -> None:
    program = native_program()
    told = run(["/opt/immure-init", "kvm"], mounts=[(program, "/opt/immure-init", "ro")])
    assert told.stdout == b"open=2\n"
    control = subprocess.run([program, "kvm"], capture_output=True, check=True)
    assert control.stdout.startswith(b"turn_ns=" if has_device() else b"open=")
