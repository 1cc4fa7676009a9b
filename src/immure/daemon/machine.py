"""One machine of the daemon: a jailed Firecracker, what it was configured with, and one caller at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from immure.daemon.bodies import Bounds, NetworkBody, SnapshotLoadBody, Vm, VmState, VsockBody
from immure.errors import BoxLost, SetupFailed, SpecError, WrongState
from immure.runtimes.firecracker import models, taps
from immure.runtimes.firecracker.console import Console
from immure.runtimes.firecracker.jailer import Jailed
from immure.runtimes.firecracker.programs import Programs

#: What the host's paths are kept of, in the order in which they were said.
Part = models.MachineConfiguration | models.BootSource | models.Drive | models.NetworkInterface | models.Vsock
_FILTERED = 2
_METRICS_S, _ENDS_S, _SEEN_S = 5.0, 1.0, 2.0
_SOCKETS = "/run"
#: Firecracker's own where nobody says how much.
_DEFAULT_MIB = 128


class Machine:
    """A machine that has a process from `begin` to `close`. Methods raise the errors of `Client` and of `Jailed`."""

    def __init__(self, vm_id: str, programs: Programs, place: str) -> None:
        self.vm_id = vm_id
        self.lock = threading.RLock()
        self.gone = False
        self._programs = programs
        self._place = place
        self._jailed: Jailed | None = None
        self._metrics: Console | None = None
        self._parts: dict[str, Part] = {}
        #: Names of TAP devices that were made, by those of network devices.
        self._own_taps: dict[str, str] = {}
        self._last: Vm | None = None

    @property
    def begun(self) -> bool:
        """Whether it has a process, or had one."""
        return self._jailed is not None

    def begin(self, *, own_network: bool = True) -> None:
        """Gives it a process of Firecracker. With `own_network` False, one that reaches the host's TAP devices."""
        self._jailed = Jailed(self._programs, self._place, self.vm_id, own_network=own_network)
        self._jailed.limit_memory(_DEFAULT_MIB)
        path, fd = self._jailed.pipe("metrics")
        try:
            self._jailed.client.set_metrics(models.Metrics(path))
            os.set_blocking(fd, True)
        except BaseException:
            os.close(fd)
            raise
        self._metrics = Console(fd)

    def kill(self) -> None:
        """Ends its process, whoever waits for that meanwhile. For any thread."""
        jailed = self._jailed
        if jailed is not None:
            jailed.kill()

    def close(self) -> None:
        """Ends its process, and removes all there was of it."""
        self.gone = True
        if self._jailed is not None:
            self._jailed.close()
        if self._metrics is not None:
            self._metrics.close()

    def configure(self, part: Part) -> None:
        """Says one part of its configuration, or says it anew."""
        self._alive(f"configuring {self.vm_id}")
        self._say(part)
        self._parts[_key(part)] = part

    def set_network(self, body: NetworkBody) -> None:
        """Gives it a network device on a TAP device of the caller's, or on one that is made for this device."""
        self._alive(f"configuring {self.vm_id}").client.check("PUT /network-interfaces")
        if body.host_dev_name is not None:
            owner = self._tap_owner(body.host_dev_name)
            self._to_host_network()
            self._lend(body.host_dev_name, owner)
            self.configure(body.on(body.host_dev_name))
            return
        self._to_host_network()
        self.configure(body.on(self._own_tap(body.iface_id)))

    def _own_tap(self, iface_id: str) -> str:
        """The one that was made for a network device, or is made now."""
        if iface_id not in self._own_taps:
            self._own_taps[iface_id] = self._known().make_tap()
        return self._own_taps[iface_id]

    def update(self, update: models.MachineUpdate) -> None:
        """Changes some of its size, before it starts."""
        jailed = self._alive("PATCH /machine-config")
        jailed.client.change_machine(update)
        whole = jailed.client.machine()
        jailed.limit_memory(whole.mem_size_mib)
        self._parts[_key(whole)] = whole

    def change_drive(self, update: models.DriveUpdate) -> None:
        """Puts another file behind a drive, or other bounds on it."""
        jailed = self._alive("PATCH /drives")
        jailed.client.check("PATCH /drives")
        drive = self._parts.get(f"drive-{update.drive_id}")
        if not isinstance(drive, models.Drive):
            have = ", ".join(name for name in self._parts if name.startswith("drive-")) or "none"
            raise SpecError(f"there is no drive {update.drive_id}", path="$.drive_id", need="one it has", have=have)
        if update.path_on_host is None:
            jailed.client.change_drive(update)
            return
        inside = jailed.bring(update.path_on_host, _key(drive), writable=not drive.is_read_only)
        jailed.client.change_drive(msgspec.structs.replace(update, path_on_host=inside))
        self._parts[_key(drive)] = msgspec.structs.replace(drive, path_on_host=update.path_on_host)

    def change_network(self, update: models.NetworkUpdate) -> None:
        """Puts other bounds on a network device."""
        self._alive("PATCH /network-interfaces").client.change_network(update)

    def set_vsock(self, body: VsockBody) -> None:
        """Gives it a vsock device, whose socket is in its own folder."""
        name = body.uds_path.removeprefix("./")
        self.configure(models.Vsock(body.guest_cid, f"{_SOCKETS}/{name}"))

    def act(self, action: str) -> None:
        """Carries out an action: InstanceStart, SendCtrlAltDel or FlushMetrics."""
        jailed = self._alive(action)
        if action == "InstanceStart":
            jailed.client.start()
            self._check_confinement(jailed)
        elif action == "SendCtrlAltDel":
            jailed.client.send_ctrl_alt_del()
        else:
            jailed.client.flush_metrics()

    def set_state(self, state: str) -> None:
        """Pauses it, or has it go on."""
        client = self._alive(state).client
        if state == "Paused":
            client.pause()
        else:
            client.resume()

    def create_snapshot(self, snapshot: models.SnapshotCreate) -> None:
        """Writes a paused machine to two files. They must be new; but the memory of a Diff may be merged into one."""
        jailed = self._alive("PUT /snapshot/create")
        merges = snapshot.snapshot_type == "Diff"
        with (
            _output(snapshot.snapshot_path, "$.snapshot_path", may_exist=False),
            _output(snapshot.mem_file_path, "$.mem_file_path", may_exist=merges),
        ):
            state = jailed.bring(snapshot.snapshot_path, "new-state", writable=True)
            memory = jailed.bring(snapshot.mem_file_path, "new-memory", writable=True)
            try:
                inside = models.SnapshotCreate(state, memory, snapshot.snapshot_type)
                jailed.client.create_snapshot(inside)
            finally:
                jailed.take_away("new-state")
                jailed.take_away("new-memory")

    def load_snapshot(self, body: SnapshotLoadBody) -> None:
        """Loads a snapshot into a machine of which nothing is configured."""
        memory = body.memory()
        self._alive("PUT /snapshot/load").client.check("PUT /snapshot/load")
        if self._parts:
            raise WrongState(
                "PUT /snapshot/load",
                need="a machine of which nothing is configured",
                have=", ".join(self._parts),
                hint="make another machine, with {} for its body",
            )
        owners = [self._tap_owner(one.host_dev_name) for one in body.network_overrides]
        if body.network_overrides:
            self._to_host_network()
        jailed = self._alive("PUT /snapshot/load")
        for override, owner in zip(body.network_overrides, owners, strict=True):
            self._lend(override.host_dev_name, owner)
        for drive in body.drives:
            jailed.bring(drive.path_on_host, f"drive-{drive.drive_id}", writable=not drive.is_read_only)
        # How much memory it has stands in a file that only Firecracker reads.
        jailed.limit_memory(_mib_of(memory))
        loads = models.SnapshotLoad(
            jailed.bring(body.snapshot_path, "state"),
            models.MemoryBackend("File", jailed.bring(memory, "memory")),
            enable_diff_snapshots=body.enable_diff_snapshots,
            resume_vm=body.resume_vm,
            network_overrides=body.network_overrides,
        )
        jailed.client.load_snapshot(loads)
        self._check_confinement(jailed)
        self._learn(jailed.client.configuration(), {drive.drive_id: drive.path_on_host for drive in body.drives})

    def _learn(self, whole: models.FullVmConfiguration, files: dict[str, str]) -> None:
        """What a snapshot's machine was configured with; the paths of its drives are this host's."""
        drives = [
            msgspec.structs.replace(one, path_on_host=files.get(one.drive_id, one.path_on_host)) for one in whole.drives
        ]
        for part in (whole.machine_config, *drives, *whole.network_interfaces, whole.vsock):
            if part is not None:
                self._parts[_key(part)] = part

    def console(self, start: int) -> tuple[int, bytes, int]:
        """What its guest has said from a position on; see `Console.read`."""
        return self._known().console.read(start)

    def metrics(self) -> dict[str, object]:
        """Firecracker's counters since it last said them."""
        jailed = self._alive("FlushMetrics")
        assert self._metrics is not None
        before = self._metrics.read()[2]
        jailed.client.flush_metrics()
        # A line is longer than what a pipe takes at once.
        if not self._metrics.wait_line(before, _METRICS_S):
            raise jailed.lost("it said nothing of its metrics")
        lines = self._metrics.read(before)[1].splitlines()
        try:
            return msgspec.json.decode(lines[-1], type=dict[str, object])
        except (msgspec.DecodeError, IndexError) as error:
            raise BoxLost(
                "its metrics can't be understood", need="an object of JSON a line", have=str(error)
            ) from error

    def seen(self) -> Vm:
        """How it is."""
        jailed = self._known()
        status = jailed.status
        networks = [part for part in self._parts.values() if isinstance(part, models.NetworkInterface)]
        drives = [part for part in self._parts.values() if isinstance(part, models.Drive)]
        machine, source, vsock = (self._parts.get(name) for name in ("machine", "boot-source", "vsock"))
        self._last = Vm(
            vm_id=self.vm_id,
            state=self._state(jailed),
            status=status,
            user=jailed.uid if status is None else None,
            pid=jailed.pid if status is None else None,
            bounds=Bounds(*jailed.bounds()) if status is None else None,
            machine_config=machine if isinstance(machine, models.MachineConfiguration) else None,
            boot_source=source if isinstance(source, models.BootSource) else None,
            drives=tuple(drives),
            networks=tuple(networks),
            vsock=_outside(vsock, jailed.root) if isinstance(vsock, models.Vsock) else None,
            console_bytes=jailed.console.read()[2],
        )
        return self._last

    def seen_within(self, within_s: float) -> Vm | None:
        """How it is, or was last where somebody's call takes longer than that. None where nobody has seen it yet."""
        if self.lock.acquire(timeout=within_s):
            try:
                return self.seen() if self.begun and not self.gone else None
            finally:
                self.lock.release()
        return msgspec.structs.replace(self._last, state="Busy") if self._last is not None else None

    def _state(self, jailed: Jailed) -> VmState:
        if jailed.status is not None:
            return "Ended"
        try:
            return jailed.client.describe(within_s=_SEEN_S).state
        except BoxLost:
            return "Ended" if jailed.ends_within(_ENDS_S) else "Silent"

    def _known(self) -> Jailed:
        assert self._jailed is not None
        return self._jailed

    def _alive(self, call: str) -> Jailed:
        jailed = self._known()
        if jailed.status is not None:
            words = jailed.console.last_words()
            raise WrongState(
                call,
                need="a machine whose VMM runs",
                have=f"one that has ended with status {jailed.status}" + (f": {words}" if words else ""),
                hint="DELETE it, and make another",
            )
        return jailed

    def _say(self, part: Part) -> None:
        jailed = self._known()
        client = jailed.client
        if isinstance(part, models.MachineConfiguration):
            client.set_machine(part)
            jailed.limit_memory(part.mem_size_mib)
        elif isinstance(part, models.BootSource):
            client.check("PUT /boot-source")
            inside = jailed.bring(part.kernel_image_path, "kernel")
            initrd = None if part.initrd_path is None else jailed.bring(part.initrd_path, "initrd")
            client.set_boot_source(models.BootSource(inside, initrd, part.boot_args))
        elif isinstance(part, models.Drive):
            client.check("PUT /drives")
            client.set_drive(self._drive_inside(jailed, part))
        elif isinstance(part, models.NetworkInterface):
            client.set_network(part)
        else:
            client.set_vsock(part)

    def _drive_inside(self, jailed: Jailed, drive: models.Drive) -> models.Drive:
        if drive.path_on_host is None:
            raise SpecError(
                "a drive is a file here",
                path="$.socket",
                need="path_on_host and is_read_only",
                have="the socket of a vhost-user server, which a jailed machine can't reach",
            )
        inside = jailed.bring(drive.path_on_host, _key(drive), writable=not drive.is_read_only)
        return msgspec.structs.replace(drive, path_on_host=inside)

    def _tap_owner(self, name: str) -> int:
        # Who reaches this daemon's socket is its user.
        if self._known().has_tap(name):
            return taps.NOBODY
        return taps.owner_of(name, os.geteuid())

    def _lend(self, name: str, owner: int) -> None:
        if not self._known().has_tap(name):
            self._known().lend_tap(name, owner)

    def _to_host_network(self) -> None:
        """A new process in the host's network, where TAP devices are, told what the old one was told."""
        jailed = self._known()
        if not jailed.own_network:
            return
        jailed.close()
        if self._metrics is not None:
            self._metrics.close()
        self.begin(own_network=False)
        for part in self._parts.values():
            self._say(part)

    def _check_confinement(self, jailed: Jailed) -> None:
        """Reads back what confines it now that it runs somebody's guest. What does not hold ends it."""
        try:
            found = jailed.confinement()
        except BoxLost:
            # A guest may be at its end already.
            if jailed.ends_within(_ENDS_S):
                return
            raise
        holds = found.uid == found.gid == jailed.uid and not found.capabilities
        if not (holds and found.no_new_privs and found.seccomp == _FILTERED and found.in_jail):
            jailed.close()
            raise SetupFailed(
                "the machine was ended: its VMM is not confined",
                step="readback",
                need=f"user {jailed.uid} in its jail, with a filter, no_new_privs and no capability",
                have=str(found),
            )


def _key(part: Part) -> str:
    if isinstance(part, models.Drive):
        return f"drive-{part.drive_id}"
    if isinstance(part, models.NetworkInterface):
        return f"network-{part.iface_id}"
    kinds = {models.MachineConfiguration: "machine", models.BootSource: "boot-source", models.Vsock: "vsock"}
    return kinds[type(part)]


def _outside(vsock: models.Vsock, root: Path) -> models.Vsock:
    return msgspec.structs.replace(vsock, uds_path=f"{root}{vsock.uds_path}")


def _mib_of(path: str) -> int:
    try:
        return -(-Path(path).stat().st_size >> 20)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{path} can't be read", path="$.mem_backend", need="a file of this host", have=str(error)
        ) from error


@contextmanager
def _output(path: str, where: str, *, may_exist: bool) -> Generator[None]:
    """A new and empty file, which is removed again where what is done with it fails."""
    if not os.path.isabs(path):  # noqa: PTH117
        raise SpecError(f"{path} is no absolute path", path=where, need="a path on this host", have=path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        if may_exist:
            yield
            return
        raise SpecError(
            f"{path} is there already", path=where, need="a path where nothing is", have="a file"
        ) from error
    except (OSError, ValueError) as error:
        have = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"{path} can't be made", path=where, need="a folder that can be written", have=have) from error
    try:
        yield
    except BaseException:
        os.unlink(path)  # noqa: PTH108
        raise
