"""``/livez`` and ``/readyz``: one word for machines, ``?verbose`` for people."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from raftfs.http.call import Call


def health_response(call: Call, checks: Sequence[tuple[str, bool, str]]) -> web.Response:
    """200 if every check (name, whether it holds, a sentence) holds, otherwise 503 naming those that do not."""
    verbose = call.query(("verbose",)).flag("verbose")
    ok = all(good for _, good, _ in checks)
    lines = [f"[{'+' if good else '-'}] {name}: {text}" for name, good, text in checks if verbose or not good]
    lines.append("ok" if ok else "not ok")
    headers = {"Cache-Control": "no-store"} if ok else {"Cache-Control": "no-store", "Retry-After": "1"}
    return web.Response(text="\n".join(lines) + "\n", status=200 if ok else 503, headers=headers)
