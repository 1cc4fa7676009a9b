"""How this host's KVM behaves, tried once for each boot."""

from __future__ import annotations

import os

import msgspec

from immure.engine import cache
from immure.host.facts import KvmFacts
from immure.host.kvm import DEVICE, try_kvm

_known: dict[str, KvmFacts] = {}


def kvm_facts() -> KvmFacts:
    """What `try_kvm` found. What was not there is looked for again every time."""
    key = "kvm-" + cache.key_of(cache.host_key(), _device())
    facts = _known.get(key) or _stored(key)
    if facts is None:
        facts = try_kvm()
        if facts.kind != "absent":
            cache.store(key, msgspec.msgpack.encode(facts))
    if facts.kind != "absent":
        _known[key] = facts
    return facts


def _device() -> tuple[int, ...] | None:
    """A module that is loaded anew, maybe with other settings, makes it anew."""
    try:
        found = os.stat(DEVICE)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_rdev, found.st_mode, found.st_uid, found.st_gid, found.st_ctime_ns


def _stored(key: str) -> KvmFacts | None:
    content = cache.load(key)
    try:
        return msgspec.msgpack.decode(content, type=KvmFacts) if isinstance(content, bytes) else None
    except msgspec.DecodeError:
        return None
