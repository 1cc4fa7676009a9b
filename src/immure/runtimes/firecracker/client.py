"""A typed client of Firecracker's API, version 1.12: one method for each call.

What the state of the machine forbids is refused before it is sent, with WrongState; what Firecracker refuses is a
VmmRefused that has its words; a VMM that is gone, is silent or talks nonsense is a BoxLost. Not for several threads at
once.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeVar

import msgspec

from immure.errors import BoxLost, SpecError, VmmRefused
from immure.runtimes.firecracker import models, states

if TYPE_CHECKING:
    from immure.runtimes.firecracker.transport import Connect, Wire

#: For a call that only says something. InstanceStart reads a kernel, snapshots write or map all of a memory.
CALL_S, START_S, SNAPSHOT_S = 10.0, 30.0, 300.0
#: The metadata store and a whole configuration have at most some ten KiB.
_ANSWER_BYTES = 1024 * 1024
#: Firecracker's own default, and that of the metadata store.
PAYLOAD_BYTES = 51_200
_FAULT_CHARACTERS = 2000

_Answer = TypeVar("_Answer")


def at(path: str) -> Connect:
    """Connects to a Unix socket of this process's file system."""

    def connect(within_s: float) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(within_s)
            made.connect(path)
        except BaseException:
            made.close()
            raise
        return made

    return connect


class Client:
    """One machine's API. `connect` gives a connected socket within so many seconds, from wherever it can be had.

    `payload_bytes` is what Firecracker was started with as `--http-api-max-payload-size`. What is longer it drops, with
    the connection, so that a SpecError comes before.
    """

    def __init__(self, connect: Connect, *, payload_bytes: int = PAYLOAD_BYTES) -> None:
        self._connect = connect
        self._payload_bytes = payload_bytes
        self._wire: Wire | None = None
        self._state: models.State | None = None
        self._configured: set[str] = set()

    def close(self) -> None:
        """Ends the connection. The machine goes on."""
        if self._wire is not None:
            self._wire.close()

    def check(self, call: str) -> None:
        """Raises WrongState where the state of the machine forbids a call, named as in `states.py`."""
        self._allowed(call)

    def describe(self, *, within_s: float = CALL_S) -> models.InstanceInfo:
        """GET /: which machine this is, and how it is."""
        info = self._get("/", models.InstanceInfo, within_s)
        self._state = info.state
        return info

    def version(self) -> str:
        """GET /version."""
        return self._get("/version", models.Version).firecracker_version

    def configuration(self) -> models.FullVmConfiguration:
        """GET /vm/config: all that the machine was configured with."""
        return self._get("/vm/config", models.FullVmConfiguration)

    def machine(self) -> models.MachineConfiguration:
        """GET /machine-config."""
        return self._get("/machine-config", models.MachineConfiguration)

    def set_machine(self, machine: models.MachineConfiguration) -> None:
        """PUT /machine-config: what is not named is at its default again."""
        self._say("PUT", "/machine-config", machine)

    def change_machine(self, update: models.MachineUpdate) -> None:
        """PATCH /machine-config: what is not named stays."""
        self._say("PATCH", "/machine-config", update)

    def set_cpu(self, cpu: models.CpuConfig) -> None:
        """PUT /cpu-config."""
        self._say("PUT", "/cpu-config", cpu)

    def set_boot_source(self, source: models.BootSource) -> None:
        """PUT /boot-source."""
        self._say("PUT", "/boot-source", source)

    def set_drive(self, drive: models.Drive) -> None:
        """PUT /drives/ID: a new drive, or another in its place."""
        self._say("PUT", "/drives", drive, name=drive.drive_id)

    def change_drive(self, update: models.DriveUpdate) -> None:
        """PATCH /drives/ID, of a machine that has started."""
        self._say("PATCH", "/drives", update, name=update.drive_id)

    def set_network(self, interface: models.NetworkInterface) -> None:
        """PUT /network-interfaces/ID. Firecracker opens the TAP device now."""
        self._say("PUT", "/network-interfaces", interface, name=interface.iface_id)

    def change_network(self, update: models.NetworkUpdate) -> None:
        """PATCH /network-interfaces/ID, of a machine that has started."""
        self._say("PATCH", "/network-interfaces", update, name=update.iface_id)

    def set_vsock(self, vsock: models.Vsock) -> None:
        """PUT /vsock."""
        self._say("PUT", "/vsock", vsock)

    def balloon(self) -> models.Balloon:
        """GET /balloon."""
        return self._get("/balloon", models.Balloon)

    def set_balloon(self, balloon: models.Balloon) -> None:
        """PUT /balloon."""
        self._say("PUT", "/balloon", balloon)

    def change_balloon(self, update: models.BalloonUpdate) -> None:
        """PATCH /balloon, of a machine that has started and whose guest has a driver for it."""
        self._say("PATCH", "/balloon", update)

    def balloon_statistics(self) -> models.BalloonStatistics:
        """GET /balloon/statistics."""
        return self._get("/balloon/statistics", models.BalloonStatistics)

    def change_balloon_statistics(self, update: models.BalloonStatisticsUpdate) -> None:
        """PATCH /balloon/statistics; an interval of 0 can't become another, nor another 0."""
        self._say("PATCH", "/balloon/statistics", update)

    def metadata(self) -> models.Metadata:
        """GET /mmds: what the metadata service says to the guest."""
        return self._get("/mmds", models.Metadata)

    def set_metadata(self, content: models.Metadata) -> None:
        """PUT /mmds: all of it. The store's bound is `payload_bytes` unless Firecracker was started with another."""
        self._say("PUT", "/mmds", content)

    def change_metadata(self, patch: models.Metadata) -> None:
        """PATCH /mmds, a merge patch: RFC 7396."""
        self._say("PATCH", "/mmds", patch)

    def set_metadata_service(self, config: models.MmdsConfig) -> None:
        """PUT /mmds/config."""
        self._say("PUT", "/mmds/config", config)

    def set_entropy(self, device: models.EntropyDevice) -> None:
        """PUT /entropy."""
        self._say("PUT", "/entropy", device)

    def set_logger(self, logger: models.Logger) -> None:
        """PUT /logger."""
        self._say("PUT", "/logger", logger)

    def set_metrics(self, metrics: models.Metrics) -> None:
        """PUT /metrics, once."""
        self._say("PUT", "/metrics", metrics)

    def start(self, *, within_s: float = START_S) -> None:
        """InstanceStart."""
        self._act("InstanceStart", within_s)

    def flush_metrics(self) -> None:
        """FlushMetrics: one more line where `set_metrics` said."""
        self._act("FlushMetrics", CALL_S)

    def send_ctrl_alt_del(self) -> None:
        """SendCtrlAltDel: a guest with a keyboard's driver reboots, which ends the VMM. x86-64."""
        self._act("SendCtrlAltDel", CALL_S)

    def pause(self) -> None:
        """PATCH /vm: the guest's processors stop."""
        self._say("PATCH", "/vm", models.VmState("Paused"), call="Paused")

    def resume(self) -> None:
        """PATCH /vm: they go on."""
        self._say("PATCH", "/vm", models.VmState("Resumed"), call="Resumed")

    def create_snapshot(self, snapshot: models.SnapshotCreate, *, within_s: float = SNAPSHOT_S) -> None:
        """PUT /snapshot/create, of a paused machine. What is at the paths already is written over."""
        self._say("PUT", "/snapshot/create", snapshot, within_s=within_s)

    def load_snapshot(self, snapshot: models.SnapshotLoad, *, within_s: float = SNAPSHOT_S) -> None:
        """PUT /snapshot/load, into a machine of which nothing is configured. Where it fails Firecracker ends."""
        self._say("PUT", "/snapshot/load", snapshot, within_s=within_s, resumed=snapshot.resume_vm)

    def _act(self, action: str, within_s: float) -> None:
        body = msgspec.convert({"action_type": action}, models.Action)
        self._say("PUT", "/actions", body, call=action, within_s=within_s)

    def _get(self, path: str, kind: type[_Answer], within_s: float | None = None) -> _Answer:
        self._allowed(f"GET {path}")
        content = self._asked("GET", path, None, CALL_S if within_s is None else within_s)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise _nonsense(f"GET {path}", str(error)) from error

    def _say(
        self,
        method: str,
        path: str,
        body: models.Written | models.Metadata,
        *,
        name: str = "",
        call: str = "",
        within_s: float = CALL_S,
        resumed: bool = False,
    ) -> None:
        call = call or f"{method} {path}"
        content = msgspec.json.encode(body)
        if len(content) > self._payload_bytes:
            have, need = f"{len(content)} bytes", f"at most {self._payload_bytes} bytes"
            raise SpecError(f"the body of {call} is too long", need=need, have=have)
        self._allowed(call)
        if call.startswith(method):
            # Before it is known how it went: what was half done is there, too.
            self._configured.add(call)
        self._asked(method, f"{path}/{name}" if name else path, content, within_s)
        if self._state is not None:
            self._state = states.after(call, self._state, resumed)

    def _allowed(self, call: str) -> None:
        if call not in states.ALLOWED:
            return
        states.check(call, self._state or self.describe().state, frozenset(self._configured))

    def _asked(self, method: str, path: str, body: bytes | None, within_s: float) -> bytes:
        if self._wire is None:
            from immure.runtimes.firecracker.transport import Wire

            self._wire = Wire(self._connect)
        try:
            status, content = self._wire.ask(method, path, body, within_s=within_s, most=_ANSWER_BYTES)
            if status not in (200, 204):
                raise _refusal(f"{method} {path}", status, content)
        except BaseException:
            # What is known of its state may be from before that.
            self._state = None
            raise
        return content


def _refusal(call: str, status: int, content: bytes) -> VmmRefused:
    try:
        words = msgspec.json.decode(content, type=models.Fault).fault_message
    except msgspec.DecodeError:
        # What its HTTP server itself refuses, such as a body that is too long, is told in JSON that is none.
        words = content.decode(errors="replace")
    words = " ".join(words.split())[:_FAULT_CHARACTERS]
    return VmmRefused(call, status=status, have=words or f"status {status} without a reason")


def _nonsense(call: str, why: str) -> BoxLost:
    return BoxLost(
        f"the answer to {call} can't be understood", need="what Firecracker 1.12 answers", have=why[:_FAULT_CHARACTERS]
    )
