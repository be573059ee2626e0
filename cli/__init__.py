"""The ``raftfs`` command. Words come in; library calls, lines of text or JSON and an exit code go out.

It is built on ``raftfs.client`` and ``raftfs.config``; the server is imported only to run one (``node run``,
``frontend run``), so that ``raftfs ls`` starts quickly. What may never happen here: a traceback for something that a
user or a network did, an error without a next step, a success code after a failure, and output that scripts read
(standard output) mixed with talk (standard error).
"""
