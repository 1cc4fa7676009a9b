"""The part of a box's root that is its own: /proc, private space, the user's mounts."""

from __future__ import annotations

from msgspec import Struct

from immure.errors import SpecError
from immure.host.facts import HostFacts, SourceFacts
from immure.host.links import first_name, through_links
from immure.plan.image import EMPTY, NULL, Image, parents
from immure.plan.limits import DEFAULT_DISK_MIB
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
from immure.plan.points import check_point
from immure.policy.landlock import DEVICES, FILE_RIGHTS, PROC, READ, WRITE, Fs
from immure.spec.models import Mount, SandboxSpec

PRIVATE_SPACE = ("/tmp", "/dev/shm")
_RESERVED = ("/proc", "/dev", "/.immure")
_TTY_GROUP = 5
INODES_PER_MIB = 256
#: Their descriptors travel in one message, which holds 253.
_MOST_MOUNTS = 200


def mount_path(mount: Mount) -> str:
    """Where a mount stands, normalised. A mount has one of the two, as its model checks."""
    target = mount.tmpfs if mount.tmpfs is not None else mount.target
    return "/" + "/".join(part for part in (target or "/").split("/") if part not in ("", "."))


class Placed(Struct, frozen=True):
    """A mount and where it stands, links of the root followed. `source` is None for a tmpfs."""

    path: str
    #: Its place in the spec.
    where: str
    mount: Mount
    source: SourceFacts | None


def check_targets(spec: SandboxSpec, image: Image) -> None:
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
        path = _where(index, mount)
        written = mount_path(mount)
        target = through_links(written, image.links)
        if target == "/" or ".." in target.split("/") or first_name(target) in image.links:
            raise SpecError(
                "the target is not inside the box's root",
                path=path,
                need="an absolute path below / without .., through no links that lead to each other",
                have=repr(mount.tmpfs or mount.target) + ("" if target == written else f", which leads to {target!r}"),
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
    image: Image,
    sources: tuple[SourceFacts, ...],
    hostname: str,
    *,
    own_network: bool,
) -> tuple[list[TemplateOp], list[RootOp]]:
    """Mount points to add to the template, and the operations that each box carries out.

    Raises SpecError for a mount that has no place to stand.
    """
    check_targets(spec, image)
    ops: list[RootOp] = [*_proc(facts), *_private(spec, facts)]
    template: list[TemplateOp] = []
    made = {f"/{op.path}" for op in image.template if isinstance(op, TemplateDir)}
    placed = _placed(spec, image, sources)
    own_space = [*PRIVATE_SPACE, *(one.path for one in placed if one.source is None)]
    shown = [path for path in image.shown if path not in own_space]
    shown += [one.path for one in placed if one.source is not None]
    for number, one in enumerate(placed):
        path, is_file = one.path, one.source is not None and one.source.kind == "file"
        if not any(path.startswith(f"{above.path}/") for above in placed):
            check_point(path, one.where, image, is_file=is_file)
        if path not in PRIVATE_SPACE:
            if _nearest(path, own_space, shown) == "own":
                ops += _point_in_own_space(path, is_file)
            elif not _beneath(path, [folder for folder in shown if folder != path]):
                template += _point_in_template(path, is_file, made)
        ops.append(_place(path, one.mount, one.source, number))
    ops.append(Hostname(name=hostname))
    if own_network:
        ops.append(Loopback())
    return template, ops


def _placed(spec: SandboxSpec, image: Image, sources: tuple[SourceFacts, ...]) -> list[Placed]:
    """The mounts, those first that others stand in."""
    kinds = iter(sources)
    found = [
        Placed(
            path=through_links(mount_path(mount), image.links),
            where=_where(index, mount),
            mount=mount,
            source=None if mount.tmpfs is not None else next(kinds),
        )
        for index, mount in enumerate(spec.files.mounts)
    ]
    return sorted(found, key=lambda one: one.path)


def _where(index: int, mount: Mount) -> str:
    return f"$.spec.files.mounts[{index}].{'tmpfs' if mount.tmpfs is not None else 'target'}"


def _place(path: str, mount: Mount, source: SourceFacts | None, number: int) -> RootOp:
    if source is None:
        if mount.size_mib is None:
            # A part of the private space, which `disk_mib` bounds.
            return Share(path=path, name=f"space{number}", mode=0o1777)
        options = f"{tmpfs_size(mount.size_mib)},mode=1777"
        return MountNew(kind="tmpfs", path=path, options=options, flags=NOSUID | NODEV)
    attributes = NOSUID | NODEV | (RDONLY if mount.access == "ro" else 0)
    return UserMount(source=source.path, path=path, attributes=attributes)


def _proc(facts: HostFacts) -> list[RootOp]:
    ops: list[RootOp] = [MountNew(kind="proc", path="/proc", options="", flags=NOSUID | NODEV | NOEXEC)]
    ops += [Hide(path=f"/proc/{name}", cover=NULL) for name in facts.proc_hidden_files]
    ops += [Hide(path=f"/proc/{name}", cover=EMPTY) for name in facts.proc_hidden_folders]
    ops += [Freeze(path=f"/proc/{name}", attributes=RDONLY | NOSUID | NODEV | NOEXEC) for name in facts.proc_frozen]
    return ops


def tmpfs_size(size_mib: int) -> str:
    """A bound on files too: an empty one takes no page of a tmpfs, and yet the kernel's memory."""
    return f"size={size_mib}m,nr_inodes={size_mib * INODES_PER_MIB}"


def sized_tmpfs(spec: SandboxSpec) -> int:
    """What tmpfs mounts of a size take of the private space together, in MiB."""
    return sum(mount.size_mib or 0 for mount in spec.files.mounts)


def _private(spec: SandboxSpec, facts: HostFacts) -> list[RootOp]:
    size = spec.limits.disk_mib or DEFAULT_DISK_MIB
    written = sized_tmpfs(spec)
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
            options=f"{tmpfs_size(size - written)},mode=0755",
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


def _beneath(path: str, folders: list[str] | tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _nearest(path: str, own: list[str], shown: list[str]) -> str | None:
    """Which kind of folder `path` lies in: the deepest one above it decides."""
    above = [(len(one), "own") for one in own if path.startswith(one + "/")]
    above += [(len(one), "shown") for one in shown if path.startswith(one + "/")]
    return max(above)[1] if above else None


def landlock_rules(spec: SandboxSpec, image: Image, sources: tuple[SourceFacts, ...]) -> tuple[tuple[str, Fs], ...]:
    """What the box's mounts allow, as rights beneath paths."""
    rules: list[tuple[str, Fs]] = [("/", Fs.READ_DIR), *image.rules]
    rules += [("/proc", PROC), ("/dev", DEVICES)]
    rules += [(path, WRITE) for path in PRIVATE_SPACE]
    kinds = iter(sources)
    for mount in spec.files.mounts:
        access = WRITE if mount.tmpfs is not None or mount.access == "rw" else READ
        if mount.tmpfs is None and next(kinds).kind == "file":
            access &= FILE_RIGHTS
        # A rule's path may have no link on its way.
        rules.append((through_links(mount_path(mount), image.links), access))
    return tuple(rules)
