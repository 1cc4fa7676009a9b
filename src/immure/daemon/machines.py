"""All machines of a daemon, by name."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager

from immure.daemon.bodies import VM_ID
from immure.daemon.machine import Machine
from immure.errors import ImmureError, SpecError, WrongState
from immure.runtimes.firecracker.programs import Programs, check_kvm

#: A call that only says something waits for its answer half as long.
_PATIENCE_S = 20


class NoMachine(ImmureError):
    """No machine has that name."""

    code = "IMM-NO-VM"


class Machines:
    """Machines, one process of Firecracker each. For many threads."""

    def __init__(self, programs: Programs, place: str) -> None:
        self._programs = programs
        self._place = place
        self._lock = threading.Lock()
        self._all: dict[str, Machine] = {}
        self._closed = False

    @contextmanager
    def made(self, vm_id: str) -> Generator[tuple[Machine, bool]]:
        """The machine of a name, for nobody else meanwhile, and whether it is new. A new one that fails is removed."""
        check_name(vm_id)
        while True:
            with self._lock:
                if self._closed:
                    raise NoMachine("the daemon ends", need="one that goes on", have="one that was told to end")
                machine = self._all.setdefault(vm_id, Machine(vm_id, self._programs, self._place))
            with _held(machine):
                if machine.gone:
                    # It was deleted between the two locks.
                    continue
                new = not machine.begun
                try:
                    if new:
                        check_kvm()
                        machine.begin()
                    yield machine, new
                except BaseException:
                    if new:
                        self._remove(machine)
                    raise
                return

    @contextmanager
    def one(self, vm_id: str) -> Generator[Machine]:
        """The machine of a name, for nobody else meanwhile. Raises NoMachine."""
        check_name(vm_id)
        with self._lock:
            machine = self._all.get(vm_id)
        if machine is not None:
            with _held(machine):
                if machine.begun and not machine.gone:
                    yield machine
                    return
        raise NoMachine(f"there is no machine {vm_id}", need="one that was made", have="none", hint="PUT /vms/{vm_id}")

    def all(self) -> list[Machine]:
        """Those that there are, in the order of their names."""
        with self._lock:
            return [self._all[name] for name in sorted(self._all)]

    def delete(self, vm_id: str) -> None:
        """Ends a machine, and removes all there was of it."""
        check_name(vm_id)
        with self._lock:
            machine = self._all.get(vm_id)
        if machine is not None:
            # Who waits for an answer of it is not waited for.
            machine.kill()
        with self.one(vm_id) as machine:
            self._remove(machine)

    def close(self) -> None:
        """Ends all, and makes no more."""
        with self._lock:
            self._closed = True
            machines = list(self._all.values())
        for machine in machines:
            machine.kill()
        for machine in machines:
            with machine.lock:
                if not machine.gone:
                    self._remove(machine)

    def _remove(self, machine: Machine) -> None:
        try:
            machine.close()
        finally:
            with self._lock:
                self._all.pop(machine.vm_id, None)


@contextmanager
def _held(machine: Machine) -> Generator[None]:
    """A machine for one caller. Raises WrongState where another's call takes too long."""
    if not machine.lock.acquire(timeout=_PATIENCE_S):
        raise WrongState(
            f"a call of {machine.vm_id}",
            need=f"a machine that is free within {_PATIENCE_S} s",
            have="one for which another call is under way",
            hint="try again, or DELETE it",
        )
    try:
        yield
    finally:
        machine.lock.release()


def check_name(vm_id: str) -> None:
    """Raises SpecError for a name that no machine can have."""
    if not re.fullmatch(VM_ID, vm_id):
        raise SpecError(
            "this can't be a machine's name",
            path="vm_id",
            need="letters, digits and hyphens, at most 64, and no hyphen at first",
            have=repr(vm_id[:80]),
        )
