"""A plan made ready: plain values only, so that a cached one is used without importing any model.

This is what a runtime carries out. It is pure data, the same for every box of the plan.
"""

from __future__ import annotations

#: Runtimes whose boxes are virtual machines: what is in their images is looked at anew each time.
MACHINES = frozenset(("qemu", "firecracker"))
#: Part of the key under which launches are cached: a change of the form makes old ones unreadable.
FORM = 10

FIELDS = (
    "plan_sha256",
    "host_sha256",
    "runtime",
    "wire",
    "level",
    "expected",
    "report",
    "sources",
    "user",
    "env",
    "workdir",
    "timeout_s",
    "output_bytes",
    "mac",
    "config",
    "ranges",
    "cgroups",
    "root",
    "own_processes",
    "terminals",
    "decides",
    "carrier",
    "guest",
    "programs",
    "image",
    "changes",
    "booted",
    "disk",
)


class Launch:
    """See FIELDS: each is bytes, a number, a string, or tuples and dicts of such.

    `wire` is the plan for the native program, `expected` what the readback must show, `sources` the user's
    mounts as (path, kind), `level` the level asked for, `config` what a spawner for this host is told first, `ranges`
    whether it needs the lock file of the id ranges, `cgroups` the folders of its boxes' cgroups, `root` whether that is
    root's, `own_processes` how many of ours stand in each, `terminals` whether its stem makes terminals, and `decides`
    the filter by which a supervisor answers the command's calls, None where the kernel decides alone. `carrier` is
    what is started in the box to carry another kernel, by its id 0, and `guest` the configuration of our init in it,
    from `programs` as (path, identity): another content makes another launch. `image` is the folder of the image with
    what `list_image` saw of it, None for `image: host`. `changes` are the mounts that a machine writes to, as
    (source, number, place in the box, most MiB): what it has changed there is brought back in the end. `booted` are the
    memory and the state of a machine that had booted, where the box goes on from them and its carrier has no path to
    them. `disk` is how a machine's own disk is made, as (bytes, folder, path of mke2fs), None where it has none.
    """

    __slots__ = (*FIELDS, "_encoded", "clauses")

    plan_sha256: str
    host_sha256: str
    runtime: str
    wire: bytes
    level: str
    expected: dict[str, object]
    report: tuple[tuple[str, str, str, str, str], ...]
    sources: tuple[tuple[str, str], ...]
    user: int
    env: dict[str, str]
    workdir: str
    timeout_s: float | None
    output_bytes: int | None
    mac: str | None
    config: bytes
    ranges: bool
    cgroups: tuple[str, ...]
    root: bool
    own_processes: int
    terminals: bool
    decides: bytes | None
    carrier: tuple[str, ...]
    guest: bytes
    programs: tuple[tuple[str, tuple[int, ...]], ...]
    image: tuple[str, object] | None
    changes: tuple[tuple[str, int, str, int], ...]
    booted: tuple[str, ...]
    disk: tuple[int, str, str] | None
    #: `report` as a result has it, once somebody has made that for all commands.
    clauses: tuple[object, ...]

    def environment(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """`env`, encoded once for all commands, and its entries as execve takes them."""
        try:
            return self._encoded
        except AttributeError:
            pairs = ((name, value.encode(errors="surrogateescape")) for name, value in self.env.items())
            found = {name.encode(errors="surrogateescape"): value for name, value in pairs}
            entries = [name + b"=" + value for name, value in found.items()]
            self._encoded: tuple[dict[bytes, bytes], list[bytes]] = found, entries
            return self._encoded

    def to_tuple(self) -> tuple[object, ...]:
        """The values in the order of FIELDS, for the cache."""
        return tuple(getattr(self, name) for name in FIELDS)

    @classmethod
    def from_tuple(cls, values: tuple[object, ...]) -> Launch:
        """The inverse of `to_tuple`. Raises ValueError where the number of values differs."""
        launch = cls()
        for name, value in zip(FIELDS, values, strict=True):
            setattr(launch, name, value)
        return launch
