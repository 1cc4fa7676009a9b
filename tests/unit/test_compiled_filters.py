"""Filters that are compiled already: what is shipped is what would be compiled, and what is kept is found again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from immure.engine import cache, filters
from immure.engine.filters import SHIPPED_SINCE, kept_filters, preset_filters
from immure.plan.filters import BoxFilters, compile_filters
from immure.policy.seccomp import PRESETS, Profile, load_preset, parse_profile, preset_text
from immure.policy.seccomp.abi import FAMILIES

TEXT = b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}'
HOST = {"arch": "x86_64", "kernel": (6, 1), "keep": 0}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "immure"


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_shipped_as_it_would_be_compiled(name: str, arch: str) -> None:
    for kernel in (SHIPPED_SINCE, (6, 1), (9, 9)):
        shipped = preset_filters(name, arch=arch, kernel=kernel, keep=0)
        assert shipped == compile_filters(load_preset(name), arch=arch, kernel=kernel, keep=0)


def test_what_is_not_shipped_is_none() -> None:
    assert preset_filters("default", arch="x86_64", kernel=(4, 4), keep=0) is None
    assert preset_filters("default", arch="x86_64", kernel=(6, 1), keep=1) is None
    assert preset_filters("default", arch="vax", kernel=(6, 1), keep=0) is None


def test_filters_of_another_text_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "preset_text", lambda name: preset_text(name) + b" ")
    assert preset_filters("default", **HOST) is None  # type: ignore[arg-type]


def test_the_shipped_file_is_up_to_date() -> None:
    script = Path(__file__).parents[2] / "tools/compile_presets.py"
    subprocess.run([sys.executable, script, "--check"], check=True, timeout=120)


class Parser:
    """Parses, and counts how often it was asked to."""

    def __init__(self, text: bytes = TEXT) -> None:
        self.text = text
        self.count = 0

    def __call__(self) -> Profile:
        self.count += 1
        return parse_profile(self.text)


def kept(parser: Parser, **host: object) -> BoxFilters:
    return kept_filters(parser.text, parser, **{**HOST, **host})  # type: ignore[arg-type]


def test_a_profile_is_compiled_once_for_what_it_depends_on() -> None:
    parser = Parser()
    first = kept(parser)
    assert kept(parser) == first == compile_filters(parse_profile(TEXT), **HOST)  # type: ignore[arg-type]
    assert parser.count == 1
    for other in ({"arch": "aarch64"}, {"kernel": (6, 2)}, {"keep": 1}):
        kept(parser, **other)
    assert parser.count == 4
    kept(Parser(TEXT + b"\n"))
    changed = Parser(TEXT.replace(b"read", b"write"))
    assert kept(changed) != first
    assert changed.count == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x00" * 500])
def test_a_spoiled_entry_is_made_anew(content: bytes, own_cache: Path) -> None:
    parser = Parser()
    first = kept(parser)
    (entry,) = own_cache.iterdir()
    entry.write_bytes(content)
    assert kept(parser) == first
    cache.store(entry.name, content)
    assert kept(parser) == first
    assert parser.count == 3
    kept(parser)
    assert parser.count == 3


def test_a_profile_that_can_not_be_compiled_is_an_error_each_time() -> None:
    text = b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}'
    for _ in range(2):
        with pytest.raises(Exception, match="SCMP_ACT_NOTIFY"):
            kept(Parser(text))
