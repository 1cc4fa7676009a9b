"""What KVM is, by what its guest has told."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.engine import cache
from immure.engine import kvm as engine
from immure.host import kvm
from immure.host.facts import KvmFacts, Missing


@pytest.mark.parametrize(
    ("turn_ns", "virtualises", "kind"),
    [
        (0, True, "hardware"),
        (100, True, "hardware"),
        (2, False, "software"),
        (101, True, "emulating"),
        (790, False, "emulating"),
    ],
)
def test_time_comes_before_the_processor_s_word(turn_ns: int, virtualises: bool, kind: str) -> None:
    facts = kvm.judge(b"turn_ns=%d\n" % turn_ns, virtualises)
    assert (facts.kind, facts.turn_ns) == (kind, turn_ns)
    assert (facts.missing is None) == (kind == "hardware")


@pytest.mark.parametrize(
    ("told", "need", "command"),
    [
        (f"open={errno.ENOENT}", "/dev/kvm", "kvm_intel"),
        (f"open={errno.EACCES}", "this user may open", "group"),
        (f"open={errno.EPROTO}", "/dev/kvm", "kvm_intel"),
        (f"machine={errno.ENOMEM}", "a guest of KVM's", "virtualises"),
        (f"run={errno.EPROTO}", "a guest of KVM's", "virtualises"),
        ("", "comes to its end", "virtualises"),
    ],
)
def test_what_is_missing_is_said(told: str, need: str, command: str) -> None:
    facts = kvm.judge(told.encode(), True)
    assert (facts.kind, facts.turn_ns) == ("absent", None)
    assert facts.missing is not None
    assert need in facts.missing.need
    assert facts.missing.have
    assert command in (facts.missing.command or "")


@given(st.binary(max_size=60))
def test_any_answer_is_judged(told: bytes) -> None:
    assert kvm.judge(told, True).kind in ("absent", "hardware", "emulating")


def test_another_processor_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    facts = kvm.try_kvm()
    assert facts.missing is not None
    assert (facts.kind, facts.missing.have) == ("absent", "none for aarch64 in this version")


def test_a_guest_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("kvm", 1)

    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    monkeypatch.setattr(subprocess, "run", hangs)
    assert kvm.try_kvm().kind == "absent"


@pytest.fixture
def tried(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[KvmFacts], list[KvmFacts]]:
    """Asks twice, as one process and then as another would; gives what was tried."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def ask(facts: KvmFacts) -> list[KvmFacts]:
        made: list[KvmFacts] = []
        monkeypatch.setattr(engine, "try_kvm", lambda: made.append(facts) or facts)
        for _ in range(2):
            monkeypatch.setattr(engine, "_known", {})
            assert engine.kvm_facts() == facts
            assert engine.kvm_facts() == facts
        return made

    return ask


def test_it_is_tried_once(tried: Callable[[KvmFacts], list[KvmFacts]]) -> None:
    assert len(tried(KvmFacts("emulating", 790, Missing("a", "b", "c")))) == 1


def test_what_is_absent_is_looked_for_again(tried: Callable[[KvmFacts], list[KvmFacts]]) -> None:
    assert len(tried(KvmFacts("absent", None, Missing("a", "b")))) == 4


def test_another_device_is_tried(
    tried: Callable[[KvmFacts], list[KvmFacts]], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert len(tried(KvmFacts("hardware", 1))) == 1
    monkeypatch.setattr(engine, "DEVICE", str(tmp_path))
    assert len(tried(KvmFacts("hardware", 1))) == 1


def test_a_spoilt_cache_is_tried_anew(
    tried: Callable[[KvmFacts], list[KvmFacts]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "load", lambda _: b"\xc1")
    assert len(tried(KvmFacts("hardware", 1))) == 2
