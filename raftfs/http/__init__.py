"""The HTTP edge that nodes and frontends share: one low-level aiohttp server and the words of its protocol.

In come bytes from anybody; out goes a :class:`~raftfs.http.call.Call` with a strictly decoded path and query, a
deadline and a replayable body, and on the way back a response, counted and timed. Whatever goes wrong, in a handler,
in the router or in the HTTP parser itself, is answered as an RFC 9457 problem. What may never happen here: a plain
text error, a traceback on the wire, a path that was normalised instead of refused, an unbounded header or buffer.
This package knows no cluster, no Raft and no files: ``api`` and ``frontend`` both build on it.
"""

from raftfs.http.body import Body
from raftfs.http.call import Call
from raftfs.http.metrics import HttpMetrics
from raftfs.http.problems import json_response, problem_response
from raftfs.http.server import App, HttpServer

__all__ = ["App", "Body", "Call", "HttpMetrics", "HttpServer", "json_response", "problem_response"]
