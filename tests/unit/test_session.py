"""What is known of this process, whichever thread asks first."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from immure.engine import session


def test_a_thread_never_sees_half_of_the_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that is measured meanwhile would lack those that are missing, and be refused."""
    monkeypatch.setattr(session, "_own_namespaces", {})
    real, seen = os.stat, []

    def slow(path: Any, **keywords: Any) -> os.stat_result:
        # As late as another thread can look.
        other = threading.Thread(target=lambda: seen.append(len(session._own_namespaces)))
        other.start()
        other.join()
        return real(path, **keywords)

    monkeypatch.setattr(session.os, "stat", slow)
    assert len(session.own_namespaces()) == 7
    assert set(seen) == {0}
