"""What the root of a box shows: an allowlist of the host's, never `/` itself, or a folder with a root file system.

Everything here is shared by all boxes of a plan and sealed read-only before the first of them.
"""

from __future__ import annotations

from msgspec import Struct

from immure.host.facts import HostFacts, ImageEntry, ImageFolder
from immure.plan.operations import (
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Bind,
    Copy,
    Device,
    Dir,
    File,
    Link,
    TemplateOp,
)
from immure.policy.landlock import FILE_RIGHTS, READ, Fs

#: Folders of the image's root that are mount points or hold generated files.
_ROOT_FOLDERS = ("dev", "etc", "proc", "tmp", "var", "run", "home", "root", "mnt", "opt", "srv")
_DEVICES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
_DEVICE_LINKS = (
    ("dev/ptmx", "pts/ptmx"),
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "fd/0"),
    ("dev/stdout", "fd/1"),
    ("dev/stderr", "fd/2"),
)
_NSSWITCH = "".join(
    f"{name}: {sources}\n"
    for name, sources in (
        ("passwd", "files"),
        ("group", "files"),
        ("shadow", "files"),
        ("hosts", "files dns"),
        ("services", "files"),
        ("protocols", "files"),
    )
)
SENTINEL = ".immure/sentinel"
NULL = "/dev/null"
EMPTY = "/.immure/empty"
_SHOWN = RDONLY | NOSUID | NODEV


class Image(Struct, frozen=True):
    """The root that boxes of a plan share, and what its paths mean."""

    template: tuple[TemplateOp, ...]
    #: Names at the top that are links, and where they lead.
    links: dict[str, str]
    #: Paths that are shown of somewhere else, in which nothing can be made.
    shown: tuple[str, ...]
    #: What Landlock allows of it.
    rules: tuple[tuple[str, Fs], ...]
    folder: ImageFolder | None = None


def make_image(facts: HostFacts, folder: ImageFolder | None, *, user: int, network: str, hostname: str) -> Image:
    """The image of a folder, or where there is none, `image: host`."""
    if folder is not None:
        return _image_of(facts, folder)
    return Image(
        template=tuple(host_image(facts, user=user, network=network, hostname=hostname)),
        links=dict(facts.image.links),
        shown=facts.image.folders,
        rules=(("/etc", READ & ~Fs.EXECUTE), *((path, READ) for path in facts.image.folders)),
    )


def _image_of(facts: HostFacts, folder: ImageFolder) -> Image:
    taken = [entry for entry in folder.entries if entry.kind in ("folder", "file")]
    links = {entry.name: entry.target for entry in folder.entries if entry.kind == "link"}
    present = {entry.name for entry in taken} | links.keys()
    ops: list[TemplateOp] = [Dir(path=name, mode=0o755) for name in _ROOT_FOLDERS if name not in present]
    ops += [Link(path=name, target=target) for name, target in links.items()]
    for entry in taken:
        ops += _entry(folder.path, entry)
    return Image(
        template=(*ops, *_own_files(), *_device_points(), *device_operations(facts)),
        links=links,
        shown=tuple(f"/{entry.name}" for entry in taken),
        rules=tuple((f"/{entry.name}", READ if entry.kind == "folder" else READ & FILE_RIGHTS) for entry in taken),
        folder=folder,
    )


def _entry(above: str, entry: ImageEntry) -> list[TemplateOp]:
    """A bind keeps the owner and mode: a copy that root makes could be read by everyone."""
    source = f"{above.rstrip('/')}/{entry.name}"
    point = Dir(path=entry.name, mode=0o755) if entry.kind == "folder" else File(path=entry.name, mode=0o644, data=b"")
    return [point, Bind(path=entry.name, source=source, attributes=_SHOWN, follow=False)]


def host_image(facts: HostFacts, *, user: int, network: str, hostname: str) -> list[TemplateOp]:
    """The operations that build the image, in order; paths are relative to its root."""
    ops: list[TemplateOp] = [Dir(path=name, mode=0o755) for name in _ROOT_FOLDERS]
    ops += [Link(path=name, target=target) for name, target in facts.image.links]
    for folder in facts.image.folders:
        ops.append(Dir(path=folder.lstrip("/"), mode=0o755))
        ops.append(Bind(path=folder.lstrip("/"), source=folder, attributes=_SHOWN))
    ops += _own_files()
    ops += _etc(facts, user=user, network=network, hostname=hostname)
    ops += _device_points()
    ops += device_operations(facts)
    return ops


def _own_files() -> list[TemplateOp]:
    return [
        Dir(path=".immure", mode=0o755),
        Dir(path=EMPTY.lstrip("/"), mode=0o555),
        File(path=SENTINEL, mode=0o444, data=b"no rule of a box covers this file\n"),
    ]


def _etc(facts: HostFacts, *, user: int, network: str, hostname: str) -> list[TemplateOp]:
    files = {
        "passwd": _passwd(user),
        "group": _group(user),
        "hosts": f"127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost\n",
        "nsswitch.conf": _NSSWITCH,
        "host.conf": "multi on\n",
    }
    copies = list(facts.image.copies)
    if network == "host":
        copies.append("/etc/resolv.conf")
    else:
        files["resolv.conf"] = "# this box has no network\n"
    ops: list[TemplateOp] = []
    made = {"/etc"}
    for source in copies:
        ops += parents(source, made)
        ops.append(Copy(path=source.lstrip("/"), source=source, mode=0o644))
    if facts.image.localtime:
        ops.append(Link(path="etc/localtime", target=facts.image.localtime))
    ops += [File(path=f"etc/{name}", mode=0o644, data=text.encode()) for name, text in files.items()]
    ops.append(Link(path="etc/mtab", target="/proc/self/mounts"))
    return ops


def parents(path: str, made: set[str]) -> list[TemplateOp]:
    """The folders above `path` that are not in `made` yet, to which they are added."""
    ops: list[TemplateOp] = []
    parts = path.strip("/").split("/")[:-1]
    for end in range(1, len(parts) + 1):
        folder = "/" + "/".join(parts[:end])
        if folder not in made:
            made.add(folder)
            ops.append(Dir(path=folder.lstrip("/"), mode=0o755))
    return ops


def _passwd(user: int) -> str:
    lines = {0: "root:x:0:0:root:/tmp:/bin/sh", 65534: "nobody:x:65534:65534:nobody:/nonexistent:/bin/false"}
    lines.setdefault(user, f"user:x:{user}:{user}:user:/tmp:/bin/sh")
    return "".join(line + "\n" for _, line in sorted(lines.items()))


def _group(user: int) -> str:
    lines = {0: "root:x:0:", 5: "tty:x:5:", 65534: "nogroup:x:65534:"}
    lines.setdefault(user, f"user:x:{user}:")
    return "".join(line + "\n" for _, line in sorted(lines.items()))


def _device_points() -> list[TemplateOp]:
    return [Dir(path="dev/pts", mode=0o755), Dir(path="dev/shm", mode=0o755)]


def device_operations(facts: HostFacts) -> list[TemplateOp]:
    """The devices that every program may expect, in a `/dev` that is there."""
    ops: list[TemplateOp] = []
    for name, minor in _DEVICES:
        ops += _device(facts, f"dev/{name}", 1, minor)
    ops += _device(facts, "dev/tty", 5, 0)
    return ops + [Link(path=path, target=target) for path, target in _DEVICE_LINKS]


def _device(facts: HostFacts, path: str, major: int, minor: int) -> list[TemplateOp]:
    if facts.root:
        return [Device(path=path, mode=0o666, major=major, minor=minor)]
    # A user namespace can't make device nodes; it can show the host's.
    return [
        File(path=path, mode=0o666, data=b""),
        Bind(path=path, source=f"/{path}", attributes=NOSUID | NOEXEC),
    ]
