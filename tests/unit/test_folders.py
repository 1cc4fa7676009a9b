"""Archives that a hostile box might send: each is refused with its reason, and nothing is left of it."""

from __future__ import annotations

import io
import random
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from immure.engine.folders import unpack_folder
from immure.errors import FileError

REG, DIR, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def archive(*members: tuple[object, ...], form: int = tarfile.GNU_FORMAT) -> bytes:
    """(name, type, content or link target, mode)"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for name, kind, *rest in members:
            info = tarfile.TarInfo(str(name))
            info.type = kind  # type: ignore[assignment]
            info.mode = rest[1] if len(rest) > 1 else 0o644  # type: ignore[assignment]
            content = rest[0] if rest else b""
            if isinstance(content, str):
                info.linkname = content
                made.addfile(info)
            else:
                info.size = len(content)  # type: ignore[arg-type]
                made.addfile(info, io.BytesIO(content))  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(data: bytes, folder: Path, max_bytes: int = 1 << 20, max_entries: int = 1000) -> Path:
    target = folder / "target"
    unpack_folder(io.BytesIO(data), target, max_bytes, max_entries, lambda: None)
    return target


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    data = archive(
        ("d", DIR, b"", 0o700),
        ("d/f", REG, b"content", 0o755),
        ("d/l", LINK, "../d/f"),
        ("n" * 250, REG, b"long name"),
        ("l", LINK, "d/" + "x" * 300),
    )
    target = unpack(data, tmp_path)
    assert (target / "d/f").read_bytes() == b"content"
    assert (target / "d/f").stat().st_mode & 0o7777 == 0o755
    assert (target / "d/l").resolve() == (target / "d/f").resolve()
    assert (target / ("n" * 250)).read_bytes() == b"long name"
    assert [one.name for one in tmp_path.iterdir()] == ["target"]


HOSTILE: dict[str, tuple[bytes, str]] = {
    "an absolute name": (archive(("/etc/passwd", REG, b"x")), "relative name"),
    "a way up": (archive(("../x", REG, b"x")), "relative name"),
    "a way up inside": (archive(("d", DIR), ("d/../../x", REG, b"x")), "relative name"),
    "a dot": (archive(("./x", REG, b"x")), "relative name"),
    "no name": (archive(("", REG, b"x")), "relative name"),
    "a slash alone": (archive(("/", DIR)), "relative name"),
    "twice": (archive(("x", REG, b"1"), ("x", REG, b"2")), "free"),
    "a file, then a folder": (archive(("x", REG, b"1"), ("x", DIR)), "free"),
    "below a file": (archive(("x", REG, b"1"), ("x/y", REG, b"2")), "folder that it is in"),
    "below a link": (archive(("x", LINK, "."), ("x/y", REG, b"2")), "folder that it is in"),
    "below nothing": (archive(("x/y", REG, b"2")), "folder that it is in"),
    "a link away": (archive(("x", LINK, "/etc/passwd")), "link within"),
    "a link up": (archive(("x", LINK, "../y")), "link within"),
    "a link up from below": (archive(("d", DIR), ("d/x", LINK, "../../y")), "link within"),
    "a chain of links": (
        archive(("a", DIR), ("a/b", DIR), ("a/b/root", LINK, "../.."), ("a/b/out", LINK, "root/../../etc")),
        "link within",
    ),
    "a link to nothing": (archive(("x", LINK, "")), "link within"),
    "a hard link": (archive(("x", HARD, "/etc/passwd")), "symbolic link"),
    "a device": (archive(("x", tarfile.CHRTYPE)), "symbolic link"),
    "a block device": (archive(("x", tarfile.BLKTYPE)), "symbolic link"),
    "a fifo": (archive(("x", tarfile.FIFOTYPE)), "symbolic link"),
    "a sparse file": (archive(("x", tarfile.GNUTYPE_SPARSE, b"x" * 512)), "symbolic link"),
    "an extended header": (archive(("x" * 300, REG, b"x"), form=tarfile.PAX_FORMAT), "symbolic link"),
    "too many entries": (archive(*((f"{index}", REG, b"") for index in range(1001))), "at most 1000 entries"),
    "too many bytes": (archive(("x", REG, bytes(1 << 19)), ("y", REG, bytes((1 << 19) + 1))), "at most 1048576 bytes"),
    "a name without end": (archive(("n" * 9000, REG, b"x")), "at most 8192 bytes"),
    "folders without end": (
        archive(*(("/".join("x" * depth), DIR) for depth in range(1, 300))),
        "at most 256 folders deep",
    ),
    "a name that no file system takes": (archive(("x" * 256, REG, b"x")), "this file system takes"),
    "a path that no file system takes": (
        archive(*(("/".join(["x" * 250] * depth), DIR) for depth in range(1, 20))),
        "this file system takes",
    ),
    "a link that no file system takes": (archive(("x", LINK, "/".join(["y" * 250] * 20))), "this file system takes"),
    "names that are too much to keep": (
        archive(*((f"{index}", LINK, "y" * 4000) for index in range(400))),
        "bytes of names",
    ),
    "cut in the middle": (archive(("x", REG, bytes(5000)))[:2000], "no archive"),
    "nonsense": (b"nonsense" * 1000, "no archive"),
    "nothing": (b"", "no archive"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_is_left(case: str, tmp_path: Path) -> None:
    data, reason = HOSTILE[case]
    with pytest.raises(FileError) as caught:
        unpack(data, tmp_path)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_a_lie_costs_no_memory(tmp_path: Path) -> None:
    """A header that promises more than anybody has."""
    for size, name in ((1 << 40, "x"), (1 << 62, "y")):
        info = tarfile.TarInfo(name)
        info.size = size
        with pytest.raises(FileError, match="at most"):
            unpack(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240), tmp_path)


@pytest.mark.parametrize("kind", [REG, DIR, LINK, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [-1, -100, -511, -512, -513, -(1 << 60)])
def test_a_size_below_nothing_is_refused(kind: bytes, size: int, tmp_path: Path) -> None:
    """It would give room to other files, or have the reader go back for ever."""
    with pytest.raises(FileError, match="size from 0 on"):
        unpack(header("x", kind, size) + bytes(10240), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"V", b"M", b"D", b"N", b"A", b"7", b"\xff"])
def test_headers_of_other_kinds_are_refused(kind: bytes, tmp_path: Path) -> None:
    """Those that give the next member another name, size or kind, and those that nobody knows."""
    said = b"20 path=/etc/passwd\n".ljust(512, b"\0")
    with pytest.raises(FileError, match="symbolic link"):
        unpack(header("x", kind, 20) + said + archive(("a", REG, b"x")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def header(name: str, kind: bytes, size: int) -> bytes:
    """One header, whose size may be what no packer writes."""
    info = tarfile.TarInfo(name)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = kind
    block[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


class Stream(io.RawIOBase):
    """An archive that is made as it is read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.rest = parts, b""

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        while len(self.rest) < size and (part := next(self.parts, None)) is not None:
            self.rest += part
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


def links(count: int) -> Iterator[bytes]:
    for number in range(count):
        info = tarfile.TarInfo(f"{number:050}")
        info.type, info.linkname = LINK, "x"
        yield info.tobuf(tarfile.GNU_FORMAT)
    yield bytes(1024)


def test_many_entries_take_little_memory(tmp_path: Path) -> None:
    count = 10_000
    tracemalloc.start()
    try:
        stream = cast("IO[bytes]", Stream(links(count)))
        unpack_folder(stream, tmp_path / "target", 0, count, lambda: None)
        peak = tracemalloc.get_traced_memory()[1]
        # The control: the reader itself keeps every header.
        tracemalloc.reset_peak()
        with tarfile.open(fileobj=cast("Any", Stream(links(count))), mode="r|") as archive:
            assert len(archive.getmembers()) == count
        assert peak < 0.8 * tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_long_names_one_after_another_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    one = info.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    with pytest.raises(FileError, match="no archive"):
        unpack(one * 5000, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_just_within_the_bounds_is_taken(tmp_path: Path) -> None:
    names = ["/".join("x" * depth) for depth in range(1, 257)]
    target = unpack(archive(*((name, DIR) for name in names), ("y" * 255, REG, b"x")), tmp_path)
    assert (target / names[-1]).is_dir()
    assert (target / ("y" * 255)).read_bytes() == b"x"


def test_trouble_of_the_host_is_not_the_box_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("immure.engine.folders.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(archive(("x", REG, b"x")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_setuid_bits_do_not_come_along(tmp_path: Path) -> None:
    target = unpack(archive(("d", DIR, b"", 0o7777), ("x", REG, b"x", 0o6755)), tmp_path)
    assert (target / "x").stat().st_mode & 0o7777 == 0o755
    assert (target / "d").stat().st_mode & 0o7777 == 0o777


def test_links_lead_out_by_no_chain(tmp_path: Path) -> None:
    """Whatever links are accepted, each leads to what is in the folder."""
    dice = random.Random(5)
    words = ["..", ".", "a", "b", "l0", "l1", "l2", "l3"]
    accepted = 0
    for number in range(400):
        links = [
            (f"{dice.choice(['', 'a/', 'a/b/'])}l{index}", LINK, "/".join(dice.choices(words, k=dice.randint(1, 4))))
            for index in range(4)
        ]
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            target = unpack(archive(("a", DIR), ("a/b", DIR), *links), folder)
        except FileError:
            continue
        accepted += 1
        for name, _, _ in links:
            try:
                where = (target / str(name)).resolve()
            except (RuntimeError, OSError):
                continue
            assert where.is_relative_to(target.resolve()), links
    assert accepted > 20


def test_spoiled_archives_never_do_anything_else(tmp_path: Path) -> None:
    good = archive(("d", DIR), ("d/f", REG, b"content" * 200), ("l", LINK, "d/f"), ("n" * 200, REG, b"x"))
    dice = random.Random(6)
    for number in range(600):
        data = bytearray(good)
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            unpack(bytes(data), folder)
        except FileError:
            assert list(folder.iterdir()) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(str(number) for number in range(600))
