"""The operations of a plan: plain data that describes itself. `native/src/plan.rs` reads the same form."""

from __future__ import annotations

from msgspec import Struct

# The flags of mount(2) and the attributes of mount_setattr(2) have the same values for these four.
RDONLY, NOSUID, NODEV, NOEXEC = 0x01, 0x02, 0x04, 0x08
_ATTRIBUTES = ((RDONLY, "ro"), (NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec"))


def _words(attributes: int) -> str:
    return ",".join(word for bit, word in _ATTRIBUTES if attributes & bit) or "rw"


class Operation(Struct, frozen=True, tag_field="op"):
    """One step. `describe` is what `--dry-run` prints."""

    def describe(self) -> str:
        """One line of plain text."""
        raise NotImplementedError


class Dir(Operation, frozen=True, tag="dir"):
    """Make a folder."""

    path: str
    mode: int

    def describe(self) -> str:
        return f"mkdir -m {self.mode:04o} {self.path}"


class Link(Operation, frozen=True, tag="link"):
    """Make a symbolic link."""

    path: str
    target: str

    def describe(self) -> str:
        return f"ln -s {self.target} {self.path}"


class File(Operation, frozen=True, tag="file"):
    """Write a generated file."""

    path: str
    mode: int
    data: bytes

    def describe(self) -> str:
        return f"write {self.path} ({len(self.data)} bytes, mode {self.mode:04o})"


class Copy(Operation, frozen=True, tag="copy"):
    """Copy a file of the host; a bind would go stale when the host replaces it."""

    path: str
    source: str
    mode: int

    def describe(self) -> str:
        return f"copy {self.source} to {self.path}"


class Bind(Operation, frozen=True, tag="bind"):
    """Show a folder, file or device of the host, with what is mounted below it.

    `follow`: where the source is a symbolic link, show what it leads to. Never for what somebody else may change.
    """

    path: str
    source: str
    attributes: int
    follow: bool = True

    def describe(self) -> str:
        return f"bind {self.source} on {self.path} ({_words(self.attributes)})"


class Device(Operation, frozen=True, tag="device"):
    """Make a character device."""

    path: str
    mode: int
    major: int
    minor: int

    def describe(self) -> str:
        return f"mknod {self.path} c {self.major} {self.minor}"


TemplateOp = Dir | Link | File | Copy | Bind | Device


class MountNew(Operation, frozen=True, tag="mount"):
    """Mount a new file system of the box's own."""

    kind: str
    path: str
    options: str
    flags: int

    def describe(self) -> str:
        return f"mount {self.kind} on {self.path} ({_words(self.flags)},{self.options})".replace(",)", ")")


class Folder(Struct, frozen=True):
    """A folder of the private space, and where it stands."""

    path: str
    name: str
    mode: int


class Private(Operation, frozen=True, tag="private"):
    """Mount one tmpfs whose folders stand at several paths and share its size."""

    options: str
    flags: int
    folders: tuple[Folder, ...]

    def describe(self) -> str:
        places = " ".join(folder.path for folder in self.folders)
        return f"mount one tmpfs for {places} ({_words(self.flags)},{self.options})"


class Disk(Operation, frozen=True, tag="disk"):
    """In a machine, mount a disk of its own whose folders stand at several paths and share its size."""

    device: str
    kind: str
    options: str
    flags: int
    folders: tuple[Folder, ...]

    def describe(self) -> str:
        places = " ".join(folder.path for folder in self.folders)
        return f"mount the disk {self.device} for {places} ({self.kind},{_words(self.flags)},{self.options})"


class Share(Operation, frozen=True, tag="share"):
    """Show one more folder of the private space."""

    path: str
    name: str
    mode: int

    def describe(self) -> str:
        return f"share the private space on {self.path}"


class MakeDir(Operation, frozen=True, tag="dir"):
    """Make a mount point in the box's own space."""

    path: str
    mode: int

    def describe(self) -> str:
        return f"mkdir -p {self.path}"


class MakeFile(Operation, frozen=True, tag="file"):
    """Make an empty file as a mount point in the box's own space."""

    path: str

    def describe(self) -> str:
        return f"touch {self.path}"


class Hide(Operation, frozen=True, tag="hide"):
    """Cover something that the kernel would show."""

    path: str
    cover: str

    def describe(self) -> str:
        return f"hide {self.path}"


class Freeze(Operation, frozen=True, tag="freeze"):
    """Make a part of /proc read-only."""

    path: str
    attributes: int

    def describe(self) -> str:
        return f"freeze {self.path} ({_words(self.attributes)})"


class UserMount(Operation, frozen=True, tag="user_mount"):
    """Attach a folder or file of the user's, idmapped where the box has ids of its own.

    With `root_too` the box's id 0 makes files here as well, as an id that is nobody's on the host, and gives them away.
    """

    source: str
    path: str
    attributes: int
    root_too: bool = False

    def describe(self) -> str:
        return f"attach {self.source} on {self.path} ({_words(self.attributes)})"


class Show(Operation, frozen=True, tag="show", omit_defaults=True):
    """In a machine, show what its second disk has of a mount's source.

    With `changes`, what is written goes to the private space, and is seen in this folder beside what is below it.
    """

    source: str
    path: str
    attributes: int
    changes: str | None = None

    def describe(self) -> str:
        above = f", written to {self.changes}" if self.changes else ""
        return f"show {self.source} on {self.path} ({_words(self.attributes)}){above}"


class Hostname(Operation, frozen=True, tag="hostname"):
    """Set the box's host name."""

    name: str

    def describe(self) -> str:
        return f"hostname {self.name}"


class Loopback(Operation, frozen=True, tag="loopback"):
    """Bring up `lo` in the box's network namespace."""

    def describe(self) -> str:
        return "ip link set lo up"


RootOp = MountNew | Private | Disk | Share | MakeDir | MakeFile | Hide | Freeze | UserMount | Show | Hostname | Loopback


class LandlockRule(Struct, frozen=True):
    """Allow `access` (LANDLOCK_ACCESS_FS_ bits) beneath `path`."""

    path: str
    access: int


class LandlockAbi(Struct, frozen=True):
    """What a kernel of this ABI knows of a ruleset."""

    abi: int
    handled_fs: int
    scoped: int


class Landlock(Struct, frozen=True, omit_defaults=True):
    """The ruleset that the stem enters once for all commands of the box."""

    handled_fs: int
    handled_net: int
    scoped: int
    rules: tuple[LandlockRule, ...]
    sentinel: str
    #: For a kernel that nobody has asked: what each ABI that will do knows, in rising order. Else it is this host's.
    abis: tuple[LandlockAbi, ...] = ()
    #: A kernel with none of them does without.
    optional: bool = False


class CommandStage(Struct, frozen=True):
    """What every command's process does last before its execve."""

    rlimits: tuple[tuple[int, int, int], ...]
    known_capabilities: int
    keep_capabilities: int
    securebits: int
    umask: int
    filters: tuple[bytes, ...]
    #: How many of `filters` the stem installs once; each command installs the others.
    inherited_filters: int
    #: The process of the next command may bear the others before there is a command; it is then begun ahead.
    ahead: bool = False
    #: Flags of seccomp(2) for the last filter where it asks a supervisor, else 0.
    listener_flags: int = 0


class CgroupLimit(Struct, frozen=True):
    """One file to write in the box's cgroup, which is made in `parent`."""

    parent: str
    file: str
    value: str

    def describe(self) -> str:
        """One line of plain text."""
        return f"cgroup in {self.parent}: {self.file} = {self.value}"
