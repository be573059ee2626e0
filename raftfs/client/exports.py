"""The tree with the digests of what it consists of: what backups are made from and compared with."""

from __future__ import annotations

from typing import Final

from raftfs import paths
from raftfs.client import encoding
from raftfs.client.cluster import ClusterCalls
from raftfs.client.transport import Request
from raftfs.models import ExportPage

_OK: Final = frozenset({200})


class ExportCalls(ClusterCalls):
    """The call behind ``raftfs.backup``."""

    async def export_page(
        self,
        path: str = "/",
        *,
        cursor: str | None = None,
        revision: int | None = None,
        data_since: int | None = None,
        timeout: float | None = None,
    ) -> ExportPage:
        """One page of a path and all below it, with the digests of what files consist of, as ``raftfs.backup`` needs
        it; pages as ``list_page``. ``data_since``: with the bytes of small files that changed after that revision.

        Raises NotFound, InvalidRequest.
        """
        query = encoding.read_query("linearizable", None, revision) | {"path": paths.normalize(path)}
        more = (("cursor", cursor), ("data_since", data_since))
        query |= {name: str(value) for name, value in more if value is not None}
        return await self._json(Request("GET", "/v1/export", _OK, query=query, timeout_s=timeout), ExportPage)
