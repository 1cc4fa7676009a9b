"""The part of a box's root that is its own: /proc, private space, the user's mounts."""

from __future__ import annotations

from immure.errors import SpecError
from immure.host.facts import HostFacts, SourceFacts
from immure.plan.image import EMPTY, NULL, parents
from immure.plan.operations import (
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    File,
    Folder,
    Freeze,
    Hide,
    Hostname,
    Loopback,
    MakeDir,
    MakeFile,
    MountNew,
    Private,
    RootOp,
    Share,
    TemplateOp,
    UserMount,
)
from immure.plan.operations import Dir as TemplateDir
from immure.policy.landlock import DEVICES, FILE_RIGHTS, PROC, READ, WRITE, Fs
from immure.spec.models import Mount, SandboxSpec

PRIVATE_SPACE = ("/tmp", "/dev/shm")
DEFAULT_DISK_MIB = 1024
_RESERVED = ("/proc", "/dev", "/.immure")
_TTY_GROUP = 5
_INODES_PER_MIB = 256
#: Their descriptors travel in one message, which holds 253.
_MOST_MOUNTS = 200


def mount_path(mount: Mount) -> str:
    """Where a mount stands, normalised. A mount has one of the two, as its model checks."""
    target = mount.tmpfs if mount.tmpfs is not None else mount.target
    return "/" + "/".join(part for part in (target or "/").split("/") if part not in ("", "."))


def check_targets(spec: SandboxSpec, facts: HostFacts) -> None:
    """Raises SpecError for a target that is the root, leads upwards, is reserved, or is there twice."""
    if len(spec.files.mounts) > _MOST_MOUNTS:
        raise SpecError(
            "too many mounts",
            path="$.spec.files.mounts",
            need=f"{_MOST_MOUNTS} at most",
            have=str(len(spec.files.mounts)),
            hint="mount a folder above them",
        )
    seen: dict[str, int] = {}
    for index, mount in enumerate(spec.files.mounts):
        path = f"$.spec.files.mounts[{index}].{'tmpfs' if mount.tmpfs is not None else 'target'}"
        target = _through_links(mount_path(mount), facts)
        if target == "/" or ".." in target.split("/"):
            raise SpecError(
                "the target is not inside the box's root",
                path=path,
                need="an absolute path below / without ..",
                have=repr(mount.tmpfs or mount.target),
            )
        if target not in PRIVATE_SPACE and _beneath(target, _RESERVED):
            raise SpecError(
                "the target is the box's own",
                path=path,
                need="a path outside /proc and /dev",
                have=repr(target),
            )
        if target in seen:
            raise SpecError(
                f"the target is that of mounts[{seen[target]}] too",
                path=path,
                need="one mount for each target",
                have=repr(target),
            )
        seen[target] = index


def box_root(
    spec: SandboxSpec,
    facts: HostFacts,
    sources: tuple[SourceFacts, ...],
    hostname: str,
    *,
    own_network: bool,
) -> tuple[list[TemplateOp], list[RootOp]]:
    """Mount points to add to the template, and the operations that each box carries out."""
    check_targets(spec, facts)
    ops: list[RootOp] = [*_proc(facts), *_private(spec, facts)]
    template: list[TemplateOp] = []
    made = {"/etc", "/dev", "/proc", "/tmp", "/var", "/run", "/home", "/root", "/mnt", "/opt", "/srv"}
    kinds = iter(sources)
    placed = sorted(
        (
            (_through_links(mount_path(mount), facts), mount, None if mount.tmpfs is not None else next(kinds))
            for mount in spec.files.mounts
        ),
        key=lambda entry: entry[0],
    )
    own_space = [*PRIVATE_SPACE, *(path for path, mount, _ in placed if mount.tmpfs is not None)]
    shown = [*facts.image.folders, *(path for path, mount, _ in placed if mount.tmpfs is None)]
    for number, (path, mount, source) in enumerate(placed):
        is_file = source is not None and source.kind == "file"
        if path not in PRIVATE_SPACE:
            if _nearest(path, own_space, shown) == "own":
                ops += _point_in_own_space(path, is_file)
            elif not _beneath(path, [folder for folder in shown if folder != path]):
                template += _point_in_template(path, is_file, made)
        ops.append(_place(path, mount, source, number))
    ops.append(Hostname(name=hostname))
    if own_network:
        ops.append(Loopback())
    return template, ops


def _place(path: str, mount: Mount, source: SourceFacts | None, number: int) -> RootOp:
    if source is None:
        if mount.size_mib is None:
            # A part of the private space, which `disk_mib` bounds.
            return Share(path=path, name=f"space{number}", mode=0o1777)
        options = f"{_size(mount.size_mib)},mode=1777"
        return MountNew(kind="tmpfs", path=path, options=options, flags=NOSUID | NODEV)
    attributes = NOSUID | NODEV | (RDONLY if mount.access == "ro" else 0)
    return UserMount(source=source.path, path=path, attributes=attributes)


def _proc(facts: HostFacts) -> list[RootOp]:
    ops: list[RootOp] = [MountNew(kind="proc", path="/proc", options="", flags=NOSUID | NODEV | NOEXEC)]
    ops += [Hide(path=f"/proc/{name}", cover=NULL) for name in facts.proc_hidden_files]
    ops += [Hide(path=f"/proc/{name}", cover=EMPTY) for name in facts.proc_hidden_folders]
    ops += [Freeze(path=f"/proc/{name}", attributes=RDONLY | NOSUID | NODEV | NOEXEC) for name in facts.proc_frozen]
    return ops


def _size(size_mib: int) -> str:
    """A bound on files too: an empty one takes no page of a tmpfs, and yet the kernel's memory."""
    return f"size={size_mib}m,nr_inodes={size_mib * _INODES_PER_MIB}"


def _private(spec: SandboxSpec, facts: HostFacts) -> list[RootOp]:
    size = spec.limits.disk_mib or DEFAULT_DISK_MIB
    written = sum(mount.size_mib or 0 for mount in spec.files.mounts)
    if written >= size and written:
        raise SpecError(
            "the tmpfs mounts leave no private space",
            path="$.spec.limits.disk_mib",
            need=f"more than the {written} MiB of all tmpfs mounts together",
            have=f"{size} MiB",
        )
    # The stem makes terminals, as root of the box where that has a range.
    owner = f",uid={spec.processes.user},gid={_TTY_GROUP}" if facts.ids.kind == "ranges" else ""
    return [
        Private(
            options=f"{_size(size - written)},mode=0755",
            flags=NOSUID | NODEV,
            folders=tuple(Folder(path=path, name=path.rsplit("/", 1)[1], mode=0o1777) for path in PRIVATE_SPACE),
        ),
        MountNew(
            kind="devpts",
            path="/dev/pts",
            options=f"ptmxmode=0666,mode=0620{owner}",
            flags=NOSUID | NOEXEC,
        ),
    ]


def _point_in_own_space(path: str, is_file: bool) -> list[RootOp]:
    if not is_file:
        return [MakeDir(path=path, mode=0o755)]
    return [MakeDir(path=path.rsplit("/", 1)[0], mode=0o755), MakeFile(path=path)]


def _point_in_template(path: str, is_file: bool, made: set[str]) -> list[TemplateOp]:
    ops = parents(path, made)
    if path in made:
        return ops
    made.add(path)
    if is_file:
        return [*ops, File(path=path.lstrip("/"), mode=0o644, data=b"")]
    return [*ops, TemplateDir(path=path.lstrip("/"), mode=0o755)]


def _through_links(path: str, facts: HostFacts) -> str:
    """The path with a link of the image's root followed: /bin/tool lies in /usr/bin."""
    _, first, *rest = path.split("/", 2)
    links = dict(facts.image.links)
    if first not in links:
        return path
    return "/" + "/".join([links[first].strip("/"), *rest])


def _beneath(path: str, folders: list[str] | tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _nearest(path: str, own: list[str], shown: list[str]) -> str | None:
    """Which kind of folder `path` lies in: the deepest one above it decides."""
    above = [(len(one), "own") for one in own if path.startswith(one + "/")]
    above += [(len(one), "shown") for one in shown if path.startswith(one + "/")]
    return max(above)[1] if above else None


def landlock_rules(spec: SandboxSpec, facts: HostFacts, sources: tuple[SourceFacts, ...]) -> tuple[tuple[str, Fs], ...]:
    """What the box's mounts allow, as rights beneath paths."""
    rules: list[tuple[str, Fs]] = [("/", Fs.READ_DIR), ("/etc", READ & ~Fs.EXECUTE)]
    rules += [(folder, READ) for folder in facts.image.folders]
    rules += [("/proc", PROC), ("/dev", DEVICES)]
    rules += [(path, WRITE) for path in PRIVATE_SPACE]
    kinds = iter(sources)
    for mount in spec.files.mounts:
        access = WRITE if mount.tmpfs is not None or mount.access == "rw" else READ
        if mount.tmpfs is None and next(kinds).kind == "file":
            access &= FILE_RIGHTS
        rules.append((mount_path(mount), access))
    return tuple(rules)
