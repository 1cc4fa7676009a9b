"""A VMM that is not confined as it should be is found by what is read back, and ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from immure.daemon.machine import Machine
from immure.errors import SetupFailed, WrongState
from immure.runtimes.firecracker import models
from immure.runtimes.firecracker.jailer import Jailed

from . import jails

pytestmark = pytest.mark.root


@pytest.fixture
def machine(place: Path, tmp_path: Path) -> Iterator[Machine]:
    one = Machine("vm", jails.programs(place), str(tmp_path / "vmms"))
    yield one
    one.close()
    assert jails.left(tmp_path / "vmms") == []


def configured(machine: Machine, kernels: Path) -> Machine:
    machine.begin()
    machine.configure(models.MachineConfiguration(1, 32))
    machine.configure(models.BootSource(str(kernels / "counts")))
    return machine


def test_control(machine: Machine, kernels: Path) -> None:
    configured(machine, kernels).act("InstanceStart")
    assert machine.seen().state == "Running"


def test_a_vmm_without_its_filter(machine: Machine, kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Jailed._start
    monkeypatch.setattr(Jailed, "_start", lambda self, command: start(self, [*command, "--no-seccomp"]))
    configured(machine, kernels)
    user = machine.seen().user
    assert user is not None
    with pytest.raises(SetupFailed, match="not confined") as refused:
        machine.act("InstanceStart")
    assert "seccomp=0" in str(refused.value.have)
    assert jails.running(user) == []
    assert machine.seen().state == "Ended"
    with pytest.raises(WrongState, match="ended with status 137"):
        machine.act("InstanceStart")
