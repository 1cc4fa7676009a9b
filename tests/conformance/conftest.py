"""What boxes of conformance tests need once, made before any of them has its time."""

from __future__ import annotations

import pytest

from immure import ImmureError
from immure.engine.machine_images import packed_host
from immure.engine.prepare import host_facts

from .faces import FACES, is_machine

_MACHINES = {face for face in FACES if is_machine(face)}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Packs this host's programs for machines, gigabytes on some hosts."""
    faces = {value for item in session.items for value in _values(item) if isinstance(value, str)}
    if session.config.option.collectonly or not faces & _MACHINES:
        return
    try:
        packed_host(host_facts().image)
    except (ImmureError, OSError):
        # Whoever needs it says so itself.
        pass


def _values(item: pytest.Item) -> list[object]:
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []
