"""The blocking client: the asynchronous one on a private loop thread. No call is implemented twice."""

from __future__ import annotations

import builtins
import io
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import IO, Any, Literal, Self, TypeVar, cast, overload

from raftfs import limits
from raftfs.client.aiofile import BinaryMode, TextMode, check_mode
from raftfs.client.asyncclient import AsyncClient, LocalPath
from raftfs.client.body import Source
from raftfs.client.calls import Ack
from raftfs.client.core import Core, abandoned
from raftfs.client.file import RawWriter, WritableFile, WritableTextFile, open_binary
from raftfs.client.options import Options, StrPath, make_options
from raftfs.client.progress import Report
from raftfs.client.transfer import TreeSummary
from raftfs.models import ClusterStatus, Consistency, Entry, EntryList, Member

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


def _as(original: Callable[..., Any]) -> Callable[[C], C]:
    """The docstring of the asynchronous call, which is the same call."""

    def decorate(call: C) -> C:
        call.__doc__ = original.__doc__
        return call

    return decorate


class Client:
    __doc__ = (AsyncClient.__doc__ or "").replace(
        "Calls may run concurrently.", "Any number of threads may share one client. Use ``with``, or ``close`` it."
    )

    def __init__(
        self,
        endpoints: str | Iterable[str] | None = None,
        *,
        deadline_s: float = limits.CLIENT_DEADLINE_S_DEFAULT,
        attempt_s: float = limits.CLIENT_ATTEMPT_S_DEFAULT,
        connect_s: float = limits.CLIENT_CONNECT_S_DEFAULT,
        ca: StrPath | None = None,
        cert: StrPath | None = None,
        key: StrPath | None = None,
    ) -> None:
        self.options = make_options(endpoints, deadline_s, attempt_s, connect_s, ca, cert, key)
        self._closed = False
        self._core: Core | None = None
        self._finalizer: weakref.finalize[[Core], Client] | None = None
        self._lock = threading.Lock()
        _clients.add(self)

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """A client with this configuration."""
        return cls(**asdict(options))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self).from_options, (self.options,))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.options.endpoints)!r})"

    def close(self) -> None:
        """Close the connections. Using the client afterwards raises RuntimeError; closing twice does nothing."""
        with self._lock:
            self._closed = True
            core, self._core = self._core, None
        if core is not None:
            if self._finalizer is not None:
                self._finalizer.detach()
            core.stop()

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _started(self) -> Core:
        """The core, started at the first call: a client that was only made, or pickled, owns no thread."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this raftfs client is closed; connect again")
            if self._core is None:
                self._core = Core(self.options)
                self._finalizer = weakref.finalize(self, Core.stop, self._core)
            return self._core

    def _after_fork(self) -> None:
        """In a child: the parent's thread is not here, and its lock may be held by nobody who will release it."""
        self._lock = threading.Lock()
        if self._core is not None:
            abandoned.append(self._core)
            self._core = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def _run(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        core = self._started()
        return core.thread.run(call(core.client))

    def _iterate(self, call: Callable[[AsyncClient], AsyncIterator[T]]) -> Iterator[T]:
        core = self._started()
        source = cast("AsyncGenerator[T, None]", call(core.client))

        async def step() -> tuple[bool, T | None]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                there, item = core.thread.run(step())
                if not there:
                    return
                yield cast("T", item)
        finally:
            core.thread.post(source.aclose())

    # Reading

    @_as(AsyncClient.read)
    def read(
        self,
        path: str,
        *,
        start: int = 0,
        stop: int | None = None,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        return self._run(
            lambda c: c.read(
                path, start=start, stop=stop, consistency=consistency, max_staleness=max_staleness,
                revision=revision, timeout=timeout,
            )
        )  # fmt: skip

    @_as(AsyncClient.stat)
    def stat(
        self,
        path: str,
        *,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        return self._run(
            lambda c: c.stat(
                path, consistency=consistency, max_staleness=max_staleness, revision=revision, timeout=timeout
            )
        )

    @_as(AsyncClient.exists)
    def exists(self, path: str, *, consistency: Consistency = "linearizable", timeout: float | None = None) -> bool:
        return self._run(lambda c: c.exists(path, consistency=consistency, timeout=timeout))

    @_as(AsyncClient.list_page)
    def list_page(
        self,
        path: str = "/",
        *,
        limit: int = limits.PAGE_ENTRIES_DEFAULT,
        cursor: str | None = None,
        recursive: bool = False,
        glob: str | None = None,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> EntryList:
        return self._run(
            lambda c: c.list_page(
                path, limit=limit, cursor=cursor, recursive=recursive, glob=glob, consistency=consistency,
                max_staleness=max_staleness, revision=revision, timeout=timeout,
            )
        )  # fmt: skip

    @_as(AsyncClient.list)
    def list(
        self,
        path: str = "/",
        *,
        recursive: bool = False,
        glob: str | None = None,
        page_size: int = limits.PAGE_ENTRIES_DEFAULT,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Entry]:
        return self._iterate(
            lambda c: c.list(
                path, recursive=recursive, glob=glob, page_size=page_size, consistency=consistency,
                max_staleness=max_staleness, revision=revision, timeout=timeout,
            )
        )  # fmt: skip

    @_as(AsyncClient.walk)
    def walk(
        self, path: str = "/", *, consistency: Consistency = "linearizable", revision: int | None = None
    ) -> Iterator[tuple[str, builtins.list[str], builtins.list[str]]]:
        return self._iterate(lambda c: c.walk(path, consistency=consistency, revision=revision))

    # Writing

    @_as(AsyncClient.write)
    def write(
        self,
        path: str,
        data: Source,
        *,
        if_absent: bool = False,
        if_match: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        parents: bool = False,
        ack: Ack = "quorum",
        checksum: bool = False,
        timeout: float | None = None,
    ) -> Entry:
        return self._run(
            lambda c: c.write(
                path, data, if_absent=if_absent, if_match=if_match, content_type=content_type, metadata=metadata,
                parents=parents, ack=ack, checksum=checksum, timeout=timeout,
            )
        )  # fmt: skip

    @_as(AsyncClient.mkdir)
    def mkdir(self, path: str, *, parents: bool = False, exist_ok: bool = False, timeout: float | None = None) -> Entry:
        return self._run(lambda c: c.mkdir(path, parents=parents, exist_ok=exist_ok, timeout=timeout))

    @_as(AsyncClient.rmdir)
    def rmdir(self, path: str, *, timeout: float | None = None) -> None:
        self._run(lambda c: c.rmdir(path, timeout=timeout))

    @_as(AsyncClient.remove)
    def remove(
        self, path: str, *, recursive: bool = False, if_match: int | None = None, timeout: float | None = None
    ) -> None:
        self._run(lambda c: c.remove(path, recursive=recursive, if_match=if_match, timeout=timeout))

    @_as(AsyncClient.rename)
    def rename(
        self,
        source: str,
        target: str,
        *,
        replace: bool = False,
        parents: bool = False,
        if_match: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        return self._run(
            lambda c: c.rename(source, target, replace=replace, parents=parents, if_match=if_match, timeout=timeout)
        )

    @_as(AsyncClient.copy)
    def copy(
        self,
        source: str,
        target: str,
        *,
        replace: bool = False,
        parents: bool = False,
        if_match: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        return self._run(
            lambda c: c.copy(source, target, replace=replace, parents=parents, if_match=if_match, timeout=timeout)
        )

    @_as(AsyncClient.set_metadata)
    def set_metadata(
        self,
        path: str,
        metadata: Mapping[str, str | None] | None = None,
        *,
        content_type: str | None = None,
        if_match: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        return self._run(
            lambda c: c.set_metadata(path, metadata, content_type=content_type, if_match=if_match, timeout=timeout)
        )

    # Open files

    @overload
    def open(self, path: str, mode: Literal["rb"]) -> io.BufferedReader: ...
    @overload
    def open(self, path: str, mode: Literal["wb", "xb"], *, parents: bool = ...) -> WritableFile: ...
    @overload
    def open(
        self,
        path: str,
        mode: Literal["r", "rt"] = ...,
        *,
        encoding: str = ...,
        errors: str = ...,
        newline: str | None = ...,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(
        self,
        path: str,
        mode: Literal["w", "wt", "x", "xt"],
        *,
        encoding: str = ...,
        errors: str = ...,
        newline: str | None = ...,
        parents: bool = ...,
    ) -> WritableTextFile: ...

    def open(
        self,
        path: str,
        mode: BinaryMode | TextMode = "r",
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        newline: str | None = None,
        parents: bool = False,
    ) -> io.BufferedReader | WritableFile | io.TextIOWrapper:
        """Open a file as Python's ``open`` does; the result is a real file object, seekable for reading.

        Modes: "rb" "wb" "xb" (create, AlreadyExists if it is there) and "r" "w" "x" for text. A reader sees one
        version throughout. What is written becomes visible when the file is closed; leaving ``with`` by an exception
        discards it. Raises NotFound, IsADirectory (reading), ValueError for other modes.
        """
        kind = check_mode(mode)
        thread = self._started().thread
        if kind == "r":
            file = open_binary(thread, self._run(lambda c: c.open_reader(path)), path)
            if "b" in mode:
                return file
            return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)
        writer = self._run(lambda c: c.open_writer(path, exclusive=kind == "x", parents=parents))
        writable = WritableFile(RawWriter(thread, writer, path))
        return writable if "b" in mode else WritableTextFile(writable, encoding, errors, newline)

    # Files and trees of this machine

    @_as(AsyncClient.put)
    def put(
        self,
        local: LocalPath | IO[bytes],
        remote: str,
        *,
        progress: bool | Report | None = None,
        if_absent: bool = False,
        if_match: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        parents: bool = False,
        ack: Ack = "quorum",
        checksum: bool = False,
        timeout: float | None = None,
    ) -> Entry:
        return self._run(
            lambda c: c.put(
                local, remote, progress=progress, if_absent=if_absent, if_match=if_match, content_type=content_type,
                metadata=metadata, parents=parents, ack=ack, checksum=checksum, timeout=timeout,
            )
        )  # fmt: skip

    @_as(AsyncClient.get)
    def get(
        self,
        remote: str,
        local: LocalPath | IO[bytes],
        *,
        progress: bool | Report | None = None,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> int:
        return self._run(
            lambda c: c.get(
                remote, local, progress=progress, consistency=consistency, max_staleness=max_staleness,
                revision=revision, timeout=timeout,
            )
        )  # fmt: skip

    @_as(AsyncClient.put_tree)
    def put_tree(
        self,
        local: LocalPath,
        remote: str,
        *,
        progress: bool | Report | None = None,
        concurrency: int = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
        ack: Ack = "quorum",
    ) -> TreeSummary:
        return self._run(lambda c: c.put_tree(local, remote, progress=progress, concurrency=concurrency, ack=ack))

    @_as(AsyncClient.get_tree)
    def get_tree(
        self,
        remote: str,
        local: LocalPath,
        *,
        progress: bool | Report | None = None,
        concurrency: int = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
        consistency: Consistency = "linearizable",
        revision: int | None = None,
    ) -> TreeSummary:
        return self._run(
            lambda c: c.get_tree(
                remote, local, progress=progress, concurrency=concurrency, consistency=consistency, revision=revision
            )
        )

    # The cluster

    @_as(AsyncClient.cluster_status)
    def cluster_status(self, *, timeout: float | None = None) -> ClusterStatus:
        return self._run(lambda c: c.cluster_status(timeout=timeout))

    @_as(AsyncClient.cluster_add)
    def cluster_add(self, member: str, peer: str, url: str, *, timeout: float | None = None) -> Member:
        return self._run(lambda c: c.cluster_add(member, peer, url, timeout=timeout))

    @_as(AsyncClient.cluster_replace)
    def cluster_replace(
        self,
        member: str,
        peer: str | None = None,
        url: str | None = None,
        *,
        force: bool = False,
        timeout: float | None = None,
    ) -> Member:
        return self._run(lambda c: c.cluster_replace(member, peer, url, force=force, timeout=timeout))

    @_as(AsyncClient.cluster_remove)
    def cluster_remove(self, member: str, *, force: bool = False, timeout: float | None = None) -> None:
        return self._run(lambda c: c.cluster_remove(member, force=force, timeout=timeout))

    @_as(AsyncClient.cluster_transfer)
    def cluster_transfer(self, to: str | None = None, *, timeout: float | None = None) -> None:
        return self._run(lambda c: c.cluster_transfer(to, timeout=timeout))


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)


def connect(
    endpoints: str | Iterable[str] | None = None,
    *,
    deadline_s: float = limits.CLIENT_DEADLINE_S_DEFAULT,
    attempt_s: float = limits.CLIENT_ATTEMPT_S_DEFAULT,
    connect_s: float = limits.CLIENT_CONNECT_S_DEFAULT,
    ca: StrPath | None = None,
    cert: StrPath | None = None,
    key: StrPath | None = None,
) -> Client:
    """A blocking client: ``with raftfs.connect("http://10.0.0.1:7400") as fs: ...``.

    Takes what ``Client`` takes. Nothing is sent before the first call, so this succeeds also while the servers are
    down. Raises ConfigError for what is not a URL.
    """
    return Client(endpoints, deadline_s=deadline_s, attempt_s=attempt_s, connect_s=connect_s, ca=ca, cert=cert, key=key)
