"""Query and headers as the options of reads and writes."""

from __future__ import annotations

from typing import Final

from raftfs.api.fields import parse_key
from raftfs.errors import InvalidRequest
from raftfs.http import Call
from raftfs.http.call import Query
from raftfs.service import ReadOptions, WriteOptions
from raftfs.state.commands import Result

READ_QUERY: Final = ("consistency", "max_staleness", "revision")
WRITE_QUERY: Final = ("ack", "forward")
_CONSISTENCIES: Final = ("linearizable", "bounded", "stale")
_ACKS: Final = ("quorum", "all")
_FORWARDS: Final = ("always", "never")
REVISION_MAX: Final = 2**63 - 1
_STALENESS_S_DEFAULT: Final = ReadOptions().max_staleness_s


def read_options(call: Call, query: Query) -> ReadOptions:
    """Raises InvalidRequest."""
    consistency = query.choice("consistency", _CONSISTENCIES)
    staleness_s = query.seconds("max_staleness")
    if staleness_s is not None and consistency != "bounded":
        raise InvalidRequest("query parameter 'max_staleness' needs consistency=bounded")
    return ReadOptions(
        consistency=consistency,  # type: ignore[arg-type]
        max_staleness_s=_STALENESS_S_DEFAULT if staleness_s is None else staleness_s,
        revision=query.integer("revision", 0, REVISION_MAX),
        timeout_s=call.remaining_s(),
    )


class Writing:
    """The options of one write, and what the state machine said about it."""

    __slots__ = ("_ack", "_call", "_key", "result")

    def __init__(self, call: Call, query: Query) -> None:
        """Raises InvalidRequest."""
        self._ack = query.choice("ack", _ACKS)
        query.choice("forward", _FORWARDS)
        self._key = parse_key(call.headers)
        self._call = call
        self.result: Result | None = None

    def options(self) -> WriteOptions:
        """Made when the write begins, for it has only what is left of the time by then."""
        call = self._call
        # A body that is still coming has each of its steps bounded; one that is here, the whole write.
        timeout_s = max(0.01, call.remaining_s()) if call.body.complete else call.timeout_s
        return WriteOptions(
            key=self._key or call.spare_key,
            timeout_s=timeout_s,
            ack=self._ack,  # type: ignore[arg-type]
            on_result=self._note,
        )

    def _note(self, result: Result) -> None:
        self.result = result
