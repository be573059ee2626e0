"""The HTTP API of a node: from a strictly decoded call to a use case, and from its result to HTTP.

Calls come in from :mod:`raftfs.http`; headers and query become the arguments of :mod:`raftfs.service`, stats become
JSON and headers, bytes are streamed with backpressure. A write that this node may not do goes to the leader through
the built-in forwarder of :mod:`raftfs.frontend`. What may never happen here: a decision about files (that is the
service's), an unknown parameter or a precondition silently ignored, or an answer that ends early and looks complete.
"""

from raftfs.api.app import NodeApp, ServicePort, make_app

__all__ = ["NodeApp", "ServicePort", "make_app"]
