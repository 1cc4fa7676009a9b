"""The paths of the `/vms` API. SPECIFICATION.md, chapter 4.1; what a body means is in `bodies.py`."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Response, delete, get, patch, put
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter

from immure.daemon import bodies
from immure.daemon.bodies import ErrorDocument, MachineBody, MachinePatch, VmDocument, VmsDocument
from immure.daemon.machine import Machine
from immure.daemon.machines import Machines
from immure.errors import SpecError
from immure.runtimes.firecracker import models

#: Firecracker's own sign of a name that is going away, on its API too.
_DEPRECATED = {"Deprecation": "true"}
_PROBLEMS = {
    400: ResponseSpec(ErrorDocument, description="The body can't be, or Firecracker refused it"),
    404: ResponseSpec(ErrorDocument, description="There is no such machine"),
    409: ResponseSpec(ErrorDocument, description="The machine's state forbids it"),
    502: ResponseSpec(ErrorDocument, description="The machine's VMM has ended under us, or does not answer"),
    503: ResponseSpec(ErrorDocument, description="This host has no KVM"),
}
_SEEN_S = 1.0
_START = Parameter(query="from", ge=0, description="A position, counted from the first byte ever said")


def machines_of(state: State) -> Machines:
    """The daemon's machines."""
    return state.machines


class Vms(Controller):
    """Virtual machines, one process of Firecracker each."""

    path = "/vms"
    tags = ("vms",)

    @get(summary="All machines", sync_to_thread=True)
    def all(self, state: State) -> VmsDocument:
        """All machines, in the order of their names."""
        seen = [machine.seen_within(_SEEN_S) for machine in machines_of(state).all()]
        return VmsDocument(tuple(one for one in seen if one is not None))

    @get("/{vm_id:str}", summary="One machine", responses=_PROBLEMS, sync_to_thread=True)
    def one(self, state: State, vm_id: str) -> VmDocument:
        """How a machine is, and what it was configured with."""
        with machines_of(state).one(vm_id) as machine:
            return _document(machine)

    @put("/{vm_id:str}", summary="Make a machine", status_code=201, responses=_PROBLEMS, sync_to_thread=True)
    def make(self, state: State, vm_id: str, data: MachineBody) -> Response[VmDocument]:
        """Makes a machine (201), or gives one that has not started another size (200)."""
        configuration = data.configuration()
        with machines_of(state).made(vm_id) as (machine, new):
            if configuration is not None:
                machine.configure(configuration)
            elif not new:
                raise SpecError("that machine is there already", need="its size", have="an empty body")
            headers = _DEPRECATED if data.ht_enabled is not None else {}
            return Response(_document(machine), status_code=201 if new else 200, headers=headers)

    @patch("/{vm_id:str}", summary="Pause, resume, resize", responses=_PROBLEMS, sync_to_thread=True)
    def change(self, state: State, vm_id: str, data: MachinePatch) -> Response[VmDocument]:
        """Pauses a machine or has it go on; or changes some of the size of one that has not started."""
        update = data.update()
        with machines_of(state).one(vm_id) as machine:
            if update is not None:
                machine.update(update)
            else:
                machine.set_state(data.state or "")
            headers = _DEPRECATED if data.ht_enabled is not None else {}
            return Response(_document(machine), status_code=200, headers=headers)

    @delete("/{vm_id:str}", summary="End a machine", responses=_PROBLEMS, sync_to_thread=True)
    def end(self, state: State, vm_id: str) -> None:
        """Ends a machine at once, and removes all there was of it."""
        machines_of(state).delete(vm_id)

    @put("/{vm_id:str}/actions", summary="Start", status_code=204, responses=_PROBLEMS, sync_to_thread=True)
    def act(self, state: State, vm_id: str, data: models.Action) -> None:
        """Carries an action out: InstanceStart, SendCtrlAltDel or FlushMetrics."""
        with machines_of(state).one(vm_id) as machine:
            machine.act(data.action_type)

    @put("/{vm_id:str}/boot-source", summary="Kernel", status_code=204, responses=_PROBLEMS, sync_to_thread=True)
    def set_boot_source(self, state: State, vm_id: str, data: models.BootSource) -> None:
        """Names the kernel, its initramfs and its arguments."""
        with machines_of(state).one(vm_id) as machine:
            machine.configure(data)

    @put(
        "/{vm_id:str}/drives/{drive_id:str}",
        summary="Block device",
        status_code=204,
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def set_drive(self, state: State, vm_id: str, drive_id: str, data: models.Drive) -> None:
        """Gives the guest a block device, or another in its place, before it starts."""
        _same("drive_id", drive_id, data.drive_id)
        with machines_of(state).one(vm_id) as machine:
            machine.configure(data)

    @patch(
        "/{vm_id:str}/drives/{drive_id:str}",
        summary="Another file behind a block device",
        status_code=204,
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def change_drive(self, state: State, vm_id: str, drive_id: str, data: models.DriveUpdate) -> None:
        """Puts another file behind a drive of a guest that has started, or other bounds on it."""
        _same("drive_id", drive_id, data.drive_id)
        with machines_of(state).one(vm_id) as machine:
            machine.change_drive(data)

    @put(
        "/{vm_id:str}/networks/{iface_id:str}",
        summary="Network device",
        status_code=204,
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def set_network(self, state: State, vm_id: str, iface_id: str, data: bodies.NetworkBody) -> None:
        """Gives the guest a network device on a TAP device that exists and belongs to the caller, or on one that is
        made for it where none is named.
        """
        _same("iface_id", iface_id, data.iface_id)
        with machines_of(state).one(vm_id) as machine:
            machine.set_network(data)

    @patch(
        "/{vm_id:str}/networks/{iface_id:str}",
        summary="Bounds on a network device",
        status_code=204,
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def change_network(self, state: State, vm_id: str, iface_id: str, data: models.NetworkUpdate) -> None:
        """Puts other bounds on a network device of a guest that has started."""
        _same("iface_id", iface_id, data.iface_id)
        with machines_of(state).one(vm_id) as machine:
            machine.change_network(data)

    @put("/{vm_id:str}/vsock", summary="Vsock device", status_code=204, responses=_PROBLEMS, sync_to_thread=True)
    def set_vsock(self, state: State, vm_id: str, data: bodies.VsockBody) -> None:
        """Gives the guest a vsock device."""
        with machines_of(state).one(vm_id) as machine:
            machine.set_vsock(data)

    @put(
        "/{vm_id:str}/snapshot/create",
        summary="Take a snapshot",
        status_code=204,
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def create_snapshot(self, state: State, vm_id: str, data: models.SnapshotCreate) -> None:
        """Writes a paused machine to two new files."""
        with machines_of(state).one(vm_id) as machine:
            machine.create_snapshot(data)

    @put(
        "/{vm_id:str}/snapshot/load",
        summary="Load a snapshot",
        status_code=204,
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def load_snapshot(self, state: State, vm_id: str, data: bodies.SnapshotLoadBody) -> None:
        """Loads a snapshot into a machine that was made with an empty body."""
        with machines_of(state).one(vm_id) as machine:
            machine.load_snapshot(data)

    @get(
        "/{vm_id:str}/console",
        summary="What the guest has said",
        media_type="application/octet-stream",
        responses=_PROBLEMS,
        sync_to_thread=True,
    )
    def console(self, state: State, vm_id: str, start: Annotated[int, _START] = 0) -> Response[bytes]:
        """The last that the guest has said on its serial line, at most 256 KiB: bytes, to be trusted as little as it.

        The headers say from which position on they are (`Immure-Console-Start`) and how many bytes there have been
        (`Immure-Console-Total`), which is the position to ask from next.
        """
        with machines_of(state).one(vm_id) as machine:
            begin, content, total = machine.console(start)
        headers = {"Immure-Console-Start": str(begin), "Immure-Console-Total": str(total)}
        return Response(content, headers=headers, media_type="application/octet-stream")

    @get("/{vm_id:str}/metrics", summary="Firecracker's counters", responses=_PROBLEMS, sync_to_thread=True)
    def metrics(self, state: State, vm_id: str) -> bodies.MetricsDocument:
        """What Firecracker has counted since it last said so."""
        with machines_of(state).one(vm_id) as machine:
            metrics: dict[str, Any] = machine.metrics()
            return bodies.MetricsDocument(metrics)


def _document(machine: Machine) -> VmDocument:
    seen = machine.seen()
    return VmDocument(**{name: getattr(seen, name) for name in seen.__struct_fields__})


def _same(name: str, in_path: str, in_body: str) -> None:
    if in_path != in_body:
        raise SpecError(f"the path names another {name}", path=f"$.{name}", need=in_path[:80], have=in_body)
