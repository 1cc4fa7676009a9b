"""What is known of a host, as plain data: `probe` fills it in, plans are compiled from it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class CgroupParent(Struct, frozen=True):
    """A cgroup in which boxes' cgroups can be made: cgroup v2, or the v1 hierarchy of `controllers`."""

    controllers: tuple[str, ...]
    path: str
    version: Literal[1, 2]
    #: Those of `controllers` that it has been given and does not pass on yet, which we are to switch on.
    switch_on: tuple[str, ...] = ()
    #: What becomes of swap: it is limited, there is none, or this kernel does not count it.
    swap: Literal["limited", "none", "uncounted"] = "limited"


class IdRange(Struct, frozen=True):
    """Where boxes' ids come from. `single`: boxes map the caller's id alone."""

    kind: Literal["single", "ranges"]
    base_uid: int = 0
    base_gid: int = 0
    size: int = 0
    slots: int = 0
    newuidmap: str | None = None
    newgidmap: str | None = None


#: What root's boxes have. Above systemd-nspawn's ranges and below its foreign one (systemd, UIDS-GIDS.md).
ROOT_RANGES = IdRange(kind="ranges", base_uid=0x7000_0000, base_gid=0x7000_0000, size=65_536, slots=4_000)


class HostImage(Struct, frozen=True):
    """What of the host's root `image: host` shows."""

    #: Links of the root such as `bin` → `usr/bin`.
    links: tuple[tuple[str, str], ...]
    #: Folders shown read-only: `/usr`, and the root's own `bin`, `lib`, … where they are no links.
    folders: tuple[str, ...]
    #: Files of /etc that are copied, because a bind of a replaced file would go stale.
    copies: tuple[str, ...]
    #: Where /etc/localtime leads, or None.
    localtime: str | None = None


class Missing(Struct, frozen=True):
    """Something that a level needs and this host refuses."""

    need: str
    have: str
    command: str | None = None


#: Root of the host that may not map another id would be mapped itself, and that is never done.
OWN_ID_IS_ROOT = Missing(
    need="an id other than the host's root to map",
    have="uid 0 without CAP_SYS_ADMIN",
    command="run as a plain user, or give the container CAP_SYS_ADMIN",
)


class ProgramFacts(Struct, frozen=True):
    """A program or kernel of this host that can be used. `version` is its own word, where it has one."""

    path: str
    version: str
    #: As `identity_of` has it.
    identity: tuple[int, ...]


class KvmFacts(Struct, frozen=True):
    """How KVM runs a guest's kernel, as it behaves.

    `hardware`: the processor does. `software`: as quick, but the processor does not virtualise. `emulating`: one
    instruction after another. `absent`: not at all, for this user.
    """

    kind: Literal["hardware", "software", "emulating", "absent"]
    #: For one turn of a loop of two instructions.
    turn_ns: int | None = None
    #: What is missing for a machine by hardware.
    missing: Missing | None = None


class DiskFacts(Struct, frozen=True):
    """How disks of machines' own are made."""

    #: Holds them: they have no names in it.
    folder: str
    #: The path of mke2fs.
    formatter: str


class MachineFacts(Struct, frozen=True):
    """What a box in a virtual machine is made with."""

    #: The program that is to run it, by which its runtime is named.
    vmm: ProgramFacts
    kernel: ProgramFacts
    #: The root of the first process, the box's image, and where there are any the sources of its mounts: paths, and
    #: what they are.
    files: tuple[tuple[str, tuple[int, ...]], ...]
    kvm: KvmFacts
    #: Drivers of the kernel are modules, which its first root brings.
    modular: bool = False
    #: Of this host's counter of ticks, for a kernel that can't measure it by itself.
    ticks_khz: int | None = None
    #: The memory and the state of one that has booted, where boxes go on from that: paths, and what they are.
    booted: tuple[tuple[str, tuple[int, ...]], ...] = ()
    #: Where the machine is to have a disk for its private space.
    disk: DiskFacts | None = None


class HostFacts(Struct, frozen=True):
    """One host, as one user. `refusals` says what the kernel refused when it was tried."""

    kernel: tuple[int, int]
    arch: str
    boot_id: str
    #: Root of the initial user namespace, with CAP_SYS_ADMIN. A container's root may be neither.
    root: bool
    uid: int
    gid: int
    groups: tuple[int, ...]
    #: 0 where the kernel has no Landlock.
    landlock_abi: int
    last_capability: int
    image: HostImage
    #: Entries of /proc that a box must not see, or must not write, and that exist here.
    proc_hidden_files: tuple[str, ...]
    proc_hidden_folders: tuple[str, ...]
    proc_frozen: tuple[str, ...]
    ids: IdRange
    #: One for each hierarchy of v1. Of v2 every cgroup that will do, the nearest first: a box is in one of them.
    cgroups: tuple[CgroupParent, ...]
    #: Why no cgroup of v2 will do; empty where one does.
    no_cgroups: str = ""
    #: Hard RLIMIT_NPROC, which can't be raised; None where it is unlimited.
    nproc_hard: int | None = None
    #: The id here that is root outside our user namespace; None where none is.
    host_root_id: int | None = 0
    #: A box without namespaces can run as another user: CAP_SETUID and its like in the initial namespace.
    switches_user: bool = False
    seccomp: bool = True
    user_namespaces: Missing | None = None
    new_proc: Missing | None = None
    ptrace: Missing | None = None

    @property
    def own_id_is_host_root(self) -> bool:
        """A box that maps one id would map root: uid 0 without the powers to map another."""
        return not self.root and self.uid == self.host_root_id


class SourceFacts(Struct, frozen=True):
    """What a mount's source was when it was looked at."""

    path: str
    kind: Literal["folder", "file"]


class ImageEntry(Struct, frozen=True):
    """Something at the top of an image's folder. `target`: where a link leads. `other`: a socket, pipe or device."""

    name: str
    kind: Literal["folder", "link", "file", "other"]
    target: str = ""


class Place(Struct, frozen=True):
    """What an image has where a mount is to stand, or the first thing on the way there that is no folder.

    `detail` is where a link leads, or why something is missing.
    """

    path: str
    kind: Literal["folder", "link", "file", "other", "missing"]
    detail: str = ""


class ImageFolder(Struct, frozen=True):
    """A folder with a root file system, as it was when it was looked at."""

    path: str
    entries: tuple[ImageEntry, ...]
    #: By the path in the box, links of the root followed: for those mounts alone that stand in what the image has.
    places: dict[str, Place]
    #: Which folder it was, and which objects: another one of that name has another.
    listing: Any
    #: The file that it was made from, with its identity as `identity_of` has it: another content makes another image.
    origin: tuple[str, tuple[int, ...]] | None = None
