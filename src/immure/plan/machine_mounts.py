"""The user's mounts in a machine: on its second disk, and where they can be written, copied above that. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from immure.errors import SpecError
from immure.host.facts import SourceFacts
from immure.plan.operations import RDONLY, Dir, RootOp, Show, TemplateOp, UserMount
from immure.policy.landlock import READ, Fs
from immure.spec.models import SandboxSpec

#: In the machine: where its init finds the sources by their number, and where what was written to each is seen.
SOURCES, CHANGES = "/.immure/mounts", "/.immure/changes"
_PARTS = ("lower", "upper")


def check_writable(spec: SandboxSpec, sources: tuple[SourceFacts, ...]) -> None:
    """Raises SpecError for a mount to write to that is no folder."""
    kinds = iter(sources)
    for index, mount in enumerate(spec.files.mounts):
        if mount.source is not None and next(kinds).kind == "file" and mount.access != "ro":
            raise SpecError(
                "a machine can't write to a file of this host that is mounted by itself",
                path=f"$.spec.files.mounts[{index}].access",
                need="ro, or the folder that it is in",
                have=mount.access,
            )


def show_sources(root: Iterable[RootOp], sources: tuple[SourceFacts, ...]) -> list[RootOp]:
    """The same operations, with what was packed of each source in place of the source."""
    numbers = list(enumerate(source.path for source in sources))
    ops: list[RootOp] = []
    for op in root:
        if not isinstance(op, UserMount):
            ops.append(op)
            continue
        # The same folder may stand at several places, and was packed for each.
        found = next(one for one in numbers if one[1] == op.source)
        numbers.remove(found)
        changes = None if op.attributes & RDONLY else f"{CHANGES}/{found[0]}"
        ops.append(Show(source=f"{SOURCES}/{found[0]}", path=op.path, attributes=op.attributes, changes=changes))
    return ops


def places_of_changes(root: Iterable[RootOp]) -> list[TemplateOp]:
    """Where what was written is seen."""
    numbers = [_number_of(one) for one in _written(root)]
    return [Dir(path=f"{CHANGES[1:]}/{number}/{part}", mode=0o755) for number in numbers for part in _PARTS]


def rules_of_changes(root: Iterable[RootOp]) -> tuple[tuple[str, Fs], ...]:
    """Who brings it back reads there, as one of the box's commands."""
    return tuple((f"{CHANGES}/{_number_of(one)}", READ & ~Fs.EXECUTE) for one in _written(root))


def changed_mounts(
    root: Iterable[RootOp], sources: tuple[SourceFacts, ...], most_mib: int
) -> tuple[tuple[str, int, str, int], ...]:
    """The mounts that are written to: source, number, place in the box, and the most that fits."""
    found: list[tuple[str, int, str, int]] = []
    for one in _written(root):
        number = _number_of(one)
        found.append((sources[number].path, number, one.path, most_mib))
    return tuple(found)


def _number_of(shown: Show) -> int:
    return int(shown.source.rsplit("/", 1)[1])


def _written(root: Iterable[RootOp]) -> list[Show]:
    return [one for one in root if isinstance(one, Show) and one.changes is not None]
