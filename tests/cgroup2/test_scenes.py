"""cgroup v2 as most machines have it: in a virtual machine, with this interpreter and this checkout.

Each test here is one that ran there (`scenes.py`).
"""

from __future__ import annotations

import pytest

from .machine import PATIENCE_S, Guest, Played
from .scenes import SCENES, Scene, shown

# The first of them boots the machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE_S + 120)]
SHOWN = [(scene.name, test) for scene in SCENES for test in shown(scene)]


def played(guest: Guest, scene: str) -> Played:
    found = guest.scenes.get(scene)
    assert found is not None, f"it never came to that; its console:\n{guest.console[-3000:]}"
    return found


def test_the_guest_ran_to_its_end(guest: Guest) -> None:
    assert (guest.ended, guest.status) == (True, 0), guest.console[-3000:]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_scene_came_to_its_end_and_left_no_cgroup(scene: Scene, guest: Guest) -> None:
    found = played(guest, scene.name)
    assert (found.status, found.left) == (0, []), guest.console[-3000:]
    names = {name.partition("[")[0] for name in found.tests}
    assert names == {*shown(scene)}, "what ran is what is listed, and all of it"


@pytest.mark.parametrize(("scene", "test"), SHOWN)
def test_shown(scene: str, test: str, guest: Guest) -> None:
    found = played(guest, scene).tests
    said = [one for name, outcomes in found.items() if name.partition("[")[0] == test for one in outcomes]
    assert said, f"it never ran; the console of the guest:\n{guest.console[-3000:]}"
    failures = [f"{outcome}: {text}" for outcome, text in said if outcome != "passed"]
    assert not failures, "\n".join(failures)
