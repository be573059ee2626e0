"""PUT, PATCH, DELETE and POST. Each handler checks all that can be checked without the body and returns the write
itself, to be run where the leader is, once, or again with the same body if the first leader turned out not to be one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from raftfs import limits
from raftfs.api.conditions import refuse_dates, write_if_absent, write_if_match
from raftfs.api.fields import (
    check_content_type,
    check_metadata,
    entry,
    parse_content_type,
    parse_digest,
    parse_metadata,
)
from raftfs.api.options import REVISION_MAX, WRITE_QUERY, Writing
from raftfs.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, TooLarge
from raftfs.http import Call, json_response, names, problem_response
from raftfs.models import MetadataPatch, MoveRequest
from raftfs.service import Files
from raftfs.state.commands import Stat

Write = Callable[[], Awaitable[web.StreamResponse]]
_Model = TypeVar("_Model", bound=BaseModel)
_PATCH_TYPES: Final = ("application/merge-patch+json", "application/json")


class Writes:
    """The writing routes of a node."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def put_file(self, call: Call) -> Write:
        query = call.query((*WRITE_QUERY, "parents"))
        writing, parents = Writing(call, query), query.flag("parents")
        must_exist, if_match = write_if_match(call.headers)
        if must_exist and if_match is None:
            raise InvalidRequest("If-Match: * is not supported on PUT; use If-Match with the ETag")
        if_absent = write_if_absent(call.headers)
        content_type, metadata = parse_content_type(call.headers), parse_metadata(call.headers)
        sha256 = parse_digest(call.headers)
        _check_content(call)

        async def run() -> web.StreamResponse:
            try:
                stat, created = await self._files.put(
                    call.path, aiter(call.body), size=call.body.size, content_type=content_type, metadata=metadata,
                    if_match=if_match, if_absent=if_absent, parents=parents, sha256=sha256, write=writing.options(),
                )  # fmt: skip
            except AlreadyExists as error:
                if not if_absent:
                    raise
                return problem_response(error, write=True, status=412)
            return _changed(stat, writing, status=201 if created else 200)

        return run

    def put_directory(self, call: Call) -> Write:
        query = call.query((*WRITE_QUERY, "parents"))
        writing, parents = Writing(call, query), query.flag("parents")
        if_absent = write_if_absent(call.headers)
        refuse_dates(call.headers)
        if "If-Match" in call.headers:
            raise InvalidRequest("If-Match is not supported when a directory is made")
        check_empty(call)

        async def run() -> web.StreamResponse:
            try:
                stat, created = await self._files.make_directory(
                    call.path, parents=parents, exist_ok=not if_absent, write=writing.options()
                )
            except AlreadyExists as error:
                if not if_absent:
                    raise
                return problem_response(error, write=True, status=412)
            return _changed(stat, writing, status=201 if created else 200)

        return run

    def delete_file(self, call: Call) -> Write:
        return self._remove(call, "file", recursive=False, writing=Writing(call, call.query(WRITE_QUERY)))

    def delete_directory(self, call: Call) -> Write:
        query = call.query((*WRITE_QUERY, "recursive"))
        return self._remove(call, "directory", recursive=query.flag("recursive"), writing=Writing(call, query))

    def _remove(self, call: Call, kind: str, *, recursive: bool, writing: Writing) -> Write:
        must_exist, if_match = write_if_match(call.headers)
        _refuse_if_none_match(call)
        check_empty(call)

        async def run() -> web.StreamResponse:
            try:
                result = await self._files.remove(
                    call.path, kind=kind, recursive=recursive, if_match=if_match, write=writing.options()
                )
            except NotFound as error:
                raise _failed_match(error) if must_exist else error from None
            return web.Response(status=204, headers={names.REVISION: str(result.revision), **_replayed(writing)})

        return run

    def patch_file(self, call: Call) -> Write:
        writing = Writing(call, call.query(WRITE_QUERY))
        must_exist, if_match = write_if_match(call.headers)
        _refuse_if_none_match(call)
        check_json(call, _PATCH_TYPES)

        async def run() -> web.StreamResponse:
            patch = await read_json(call, MetadataPatch)
            check_metadata(patch.metadata)
            if patch.content_type is not None:
                check_content_type(patch.content_type)
            try:
                stat = await self._files.set_metadata(
                    call.path, metadata=patch.metadata, content_type=patch.content_type, if_match=if_match,
                    write=writing.options(),
                )  # fmt: skip
            except NotFound as error:
                raise _failed_match(error) if must_exist else error from None
            return _changed(stat, writing, status=200)

        return run

    def rename(self, call: Call) -> Write:
        return self._move(call, copy=False)

    def copy(self, call: Call) -> Write:
        return self._move(call, copy=True)

    def _move(self, call: Call, *, copy: bool) -> Write:
        writing = Writing(call, call.query(WRITE_QUERY))
        for name in ("If-Match", "If-None-Match"):
            if name in call.headers:
                raise InvalidRequest(f"{name} is not supported here; use if_match and replace in the body")
        refuse_dates(call.headers)
        check_json(call, ("application/json",))

        async def run() -> web.StreamResponse:
            move = await read_json(call, MoveRequest)
            if move.if_match is not None and not 0 <= move.if_match <= REVISION_MAX:
                raise InvalidRequest(f"if_match: {move.if_match} is not a revision")
            do = self._files.copy if copy else self._files.rename
            stat = await do(
                move.source, move.target, replace=move.replace, parents=move.parents, if_match=move.if_match,
                write=writing.options(),
            )  # fmt: skip
            return _changed(stat, writing, status=200)

        return run


def _changed(stat: Stat, writing: Writing, *, status: int) -> web.Response:
    revision = stat.revision if writing.result is None else writing.result.revision
    headers = {"ETag": names.etag(stat.revision), names.REVISION: str(revision), **_replayed(writing)}
    return json_response(entry(stat), status=status, headers=headers)


def _replayed(writing: Writing) -> dict[str, str]:
    return {names.REPLAYED: "true"} if writing.result is not None and writing.result.replayed else {}


def _failed_match(error: NotFound) -> PreconditionFailed:
    return PreconditionFailed(f"If-Match: * needs something to be there: {error.detail}", outcome="not_applied")


def _refuse_if_none_match(call: Call) -> None:
    if "If-None-Match" in call.headers:
        raise InvalidRequest(f"If-None-Match is not supported on {call.method}")


def _check_content(call: Call) -> None:
    """Refuse a body that would not be stored as the client means it."""
    if call.body.size is not None and call.body.size > limits.FILE_BYTES_MAX:
        raise TooLarge(f"the file is {call.body.size} bytes long, at most {limits.FILE_BYTES_MAX} are allowed")
    if call.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise InvalidRequest("Content-Encoding is not supported: bytes are stored and given back as they are")
    if "Content-Range" in call.headers:
        raise InvalidRequest("Content-Range is not supported: a PUT replaces the whole file")


def check_empty(call: Call) -> None:
    """Raises InvalidRequest if there is a body."""
    if call.body.size != 0:
        raise InvalidRequest(f"{call.method} takes no body here")


def check_json(call: Call, types: tuple[str, ...]) -> None:
    """Raises InvalidRequest, TooLarge for a body that its headers show to be no JSON of ours."""
    given = call.headers.get("Content-Type", types[0]).partition(";")[0].strip().lower()
    if given not in types:
        raise InvalidRequest(f"Content-Type {given!r} is not {' or '.join(types)}")
    if call.body.size is not None and call.body.size > limits.JSON_BODY_BYTES_MAX:
        raise TooLarge(
            f"the body is {call.body.size} bytes long, at most {limits.JSON_BODY_BYTES_MAX} are allowed here"
        )


async def read_json(call: Call, model: type[_Model]) -> _Model:
    """The body. Raises InvalidRequest saying which field is wrong, TooLarge."""
    data = await call.body.read_all(limits.JSON_BODY_BYTES_MAX)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:5])
        raise InvalidRequest(f"the body is not what is expected here: {wrong}") from None
