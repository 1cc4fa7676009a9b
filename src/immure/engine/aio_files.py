"""Files of a box, for an event loop: what `Files` does, on a thread that is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from immure.engine.face import BoxFace
from immure.engine.file_models import FileEvent, FileInfo
from immure.engine.files import Content, Files, StrPath
from immure.engine.result import Output
from immure.engine.watching import Watch

_T = TypeVar("_T")


class AsyncFiles:
    """The files of one box. Methods are those of `Files`, awaited; cancelling one ends its operation in the box."""

    def __init__(self, face: BoxFace) -> None:
        self._face = face

    async def _do(self, method: Callable[..., _T], *args: Any, **keywords: Any) -> _T:
        files = Files(self._face)
        work = asyncio.ensure_future(asyncio.to_thread(method, files, *args, **keywords))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            files.abandon()
            # Its thread is about to end: what it was doing has been taken from under it.
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def read(self, path: StrPath, *, offset: int = 0, length: int | None = None) -> Output:
        """As `Files.read`."""
        return await self._do(Files.read, path, offset=offset, length=length)

    async def read_into(self, path: StrPath, file: BinaryIO, *, offset: int = 0, max_bytes: int | None = None) -> int:
        """As `Files.read_into`."""
        return await self._do(Files.read_into, path, file, offset=offset, max_bytes=max_bytes)

    async def write(
        self,
        path: StrPath,
        data: Content,
        *,
        mode: int = 0o644,
        append: bool = False,
        new: bool = False,
        parents: bool = False,
    ) -> None:
        """As `Files.write`."""
        await self._do(Files.write, path, data, mode=mode, append=append, new=new, parents=parents)

    async def list(self, path: StrPath = ".", *, max_entries: int = 100_000) -> list[FileInfo]:
        """As `Files.list`."""
        return await self._do(Files.list, path, max_entries=max_entries)

    async def stat(self, path: StrPath, *, follow: bool = True) -> FileInfo:
        """As `Files.stat`."""
        return await self._do(Files.stat, path, follow=follow)

    async def exists(self, path: StrPath) -> bool:
        """As `Files.exists`."""
        return await self._do(Files.exists, path)

    async def mkdir(self, path: StrPath, *, mode: int = 0o755, parents: bool = False) -> None:
        """As `Files.mkdir`."""
        await self._do(Files.mkdir, path, mode=mode, parents=parents)

    async def remove(self, path: StrPath, *, recursive: bool = False) -> None:
        """As `Files.remove`."""
        await self._do(Files.remove, path, recursive=recursive)

    async def move(self, source: StrPath, target: StrPath, *, replace: bool = False) -> None:
        """As `Files.move`."""
        await self._do(Files.move, source, target, replace=replace)

    async def upload(self, source: StrPath, path: StrPath) -> None:
        """As `Files.upload`."""
        await self._do(Files.upload, source, path)

    async def download(
        self, path: StrPath, target: StrPath, *, max_bytes: int = 1 << 30, max_entries: int = 100_000
    ) -> None:
        """As `Files.download`."""
        await self._do(Files.download, path, target, max_bytes=max_bytes, max_entries=max_entries)

    async def watch(self, path: StrPath, *, recursive: bool = False) -> AsyncWatch:
        """As `Files.watch`."""
        return AsyncWatch(await self._do(Files.watch, path, recursive=recursive))


class AsyncWatch:
    """Changes as they come: an asynchronous iterator, and a context manager that ends it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> FileEvent:
        work = asyncio.ensure_future(asyncio.to_thread(next, self._watch, None))
        try:
            event = await asyncio.shield(work)
        except asyncio.CancelledError:
            self._watch.abandon()
            await asyncio.gather(work, return_exceptions=True)
            raise
        if event is None:
            raise StopAsyncIteration
        return event

    def close(self) -> None:
        """Ends it."""
        self._watch.close()

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
