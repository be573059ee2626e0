"""Every limit of raftfs, each a named constant with its unit last. Nothing in raftfs is unbounded."""

from __future__ import annotations

from typing import Final

# Paths (bytes of UTF-8).
PATH_BYTES_MAX: Final = 4096
COMPONENT_BYTES_MAX: Final = 255

# File content.
CHUNK_BYTES: Final = 4 * 1024 * 1024
INLINE_BYTES_MAX: Final = 32 * 1024
FILE_BYTES_MAX: Final = 16 * 1024**4
UPLOAD_BYTES_IN_FLIGHT_MAX: Final = 4 * CHUNK_BYTES
UPLOADS_AT_ONCE_MAX: Final = 32  # each can hold a chunk's buffer while its client is slow
UPLOADS_BYTES_MAX: Final = 32 * CHUNK_BYTES  # in flight, of all uploads together
BUFFERED_BODY_BYTES_MAX: Final = 1024 * 1024  # bodies up to this are kept so that they can be retried
BUFFERED_BODIES_BYTES_MAX: Final = 64 * 1024 * 1024  # kept by all requests together, beside a little of each

# Metadata of a file.
METADATA_BYTES_MAX: Final = 8 * 1024
METADATA_KEYS_MAX: Final = 64
CONTENT_TYPE_BYTES_MAX: Final = 255
IDEMPOTENCY_KEY_BYTES_MAX: Final = 255
IDEMPOTENCY_KEYS_MAX: Final = 1_000_000
IDEMPOTENCY_KEY_AGE_MS_MAX: Final = 24 * 3600 * 1000

# HTTP.
HEADER_LINE_BYTES_MAX: Final = 16 * 1024
HEADERS_MAX: Final = 128
ANSWER_HEADER_LINE_BYTES_MAX: Final = 4 * METADATA_BYTES_MAX  # one header can hold all metadata, each byte as %XX
HTTP_CONNECTIONS_MAX: Final = 10_000  # and never more than half of the files that the process may open
KEEP_ALIVE_S: Final = 75.0
LINGER_S_MAX: Final = 2.0  # how long a refused client may go on sending before it is cut off
WRITE_SLICE_BYTES: Final = 256 * 1024  # a response is handed to the socket in pieces of this size
JSON_BODY_BYTES_MAX: Final = 256 * 1024
PAGE_ENTRIES_DEFAULT: Final = 1000
PAGE_ENTRIES_MAX: Final = 10_000
REQUEST_DEADLINE_S_DEFAULT: Final = 15.0
REQUEST_DEADLINE_S_MAX: Final = 3600.0
BODY_IDLE_S_MAX: Final = 60.0  # a body that brings no byte for this long is given up

# Forwarding.
FAILOVER_S: Final = 0.1  # a leader that has gone has a successor by then: how soon to ask again
UPSTREAM_CONNECTIONS_MAX: Final = 1024
UPSTREAM_CONNECT_S_MAX: Final = 1.0
UPSTREAM_ANSWER_BYTES_MAX: Final = 1024 * 1024  # of an answer that is not a file or a list
PROBE_S_MAX: Final = 0.5  # how long a node may take to say who leads
ROUNDS_S_MIN: Final = 0.01  # from one round that asks all nodes who leads to the next
SLOW_S: Final = 0.3  # after this long without progress, ask the others whether the leader is still the leader
READ_TRY_S: Final = 1.0  # the first tries of a read; doubled each time that all nodes have been tried
RETRY_PAUSE_S_MIN: Final = 0.01
RETRY_PAUSE_S_MAX: Final = 0.2
NODE_REST_S_MIN: Final = 0.25  # a node that failed is not asked again for this long, twice as long each time
NODE_REST_S_MAX: Final = 2.0
NODES_KNOWN_MAX: Final = 64

# Replicated log.
MEMBERS_MAX: Final = 9
MEMBERS_POLL_S: Final = 0.25  # how often a change of the members looks whether it may go on
MEMBERS_ROUND_S: Final = 0.5  # how often a leader looks whether a new member has caught up
PROMOTION_LAG_ENTRIES_MAX: Final = 1000
COMMAND_BYTES_MAX: Final = 256 * 1024
ENTRY_BYTES_MAX: Final = 1024 * 1024
BATCH_COMMANDS_MAX: Final = 4096
PROPOSALS_WAITING_MAX: Final = 20_000
PROPOSALS_WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
ENTRIES_IN_FLIGHT_MAX: Final = 4
APPEND_MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
PEER_BYTES_IN_FLIGHT_MAX: Final = 8 * 1024 * 1024
PEER_ENTRIES_IN_FLIGHT_MAX: Final = 512  # reading them, to a member that catches up, must not hold up the leader's loop
JOURNAL_SEGMENT_BYTES: Final = 64 * 1024 * 1024
JOURNAL_SEGMENTS_KEPT: Final = 4  # what the log keeps for members that were away for a while
SNAPSHOT_PIECE_BYTES: Final = 4 * 1024 * 1024
SNAPSHOT_COPY_S_MAX: Final = 600.0
SNAPSHOT_IDLE_S_MAX: Final = 60.0  # a copy that nobody reads from for this long is deleted
SNAPSHOT_RETRY_S: Final = 1.0
JOURNAL_TAIL_BYTES_MAX: Final = 16 * 1024 * 1024
STATE_HANG_TIMES_MAX: Final = 4  # as long as that, so many times, may the state machine take for one call
DISK_HANG_TIMEOUTS_MAX: Final = 1  # maximal election timeouts that a write of the log may take

# Peer port.
PEER_FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
PEER_HELLO_S_MAX: Final = 5.0
PEER_CONNECTIONS_MAX: Final = 64
PEER_REFUSALS_NOTED_MAX: Final = 64  # names that were refused, of which each reason is logged once
CHUNK_TRANSFERS_AT_ONCE_MAX: Final = 4
PEER_CHUNK_BYTES_IN_FLIGHT_MAX: Final = 4 * CHUNK_BYTES  # as much as one upload, or the peer is what it waits for
PEER_BYTES_TRAILING_MAX: Final = 32 * 1024 * 1024  # chunks that a majority holds and that this peer is still to get
CHUNK_PUT_S_MAX: Final = 30.0
CHUNK_GET_S_MAX: Final = 5.0
CHUNK_RETRY_S_MIN: Final = 0.05
CHUNK_RETRY_S_MAX: Final = 1.0
STATUS_S_MAX: Final = 0.5

# Certificates and TLS.
CA_DAYS_DEFAULT: Final = 3650
CERTIFICATE_DAYS_DEFAULT: Final = 365
CERTIFICATE_DAYS_MAX: Final = 7300
CERTIFICATE_WARNING_S: Final = 14 * 24 * 3600.0  # less than this before its end, the log warns of a certificate
PEM_BYTES_MAX: Final = 1024 * 1024
TLS_HANDSHAKE_S_MAX: Final = 5.0
TLS_HANDSHAKES_MAX: Final = 256  # at once, on one port; beyond that, whoever takes longest makes room
TLS_LOOK_S: Final = 5.0  # how often certificate files are looked at
TLS_WARN_S: Final = 24 * 3600.0  # from one warning of the same certificate to the next
TLS_REFUSALS_LOGGED_MAX: Final = 64  # addresses and reasons that are remembered, so that each is logged once a minute
CERTIFICATE_SKEW_S: Final = 3600.0  # a new certificate is valid for so long already, for clocks that are behind

# Format versions.
FORMING_S_MAX: Final = 2.0  # a new cluster waits this long for members that have not said what they understand
FORMING_POLL_S: Final = 0.05
UPGRADE_POLL_S: Final = 1.0

# Work inside a node.
RECOVERY_LINES_MAX: Final = 20  # of each list that a recovery shows to people
RECOVERY_TERMS: Final = (
    1_000_000  # a recovered member is so far ahead of its old cluster, where each election takes one
)
CHUNK_THREADS: Final = 8
UPLOADS_WAITING_MAX: Final = 1000
READ_AHEAD_CHUNKS: Final = 2
READ_AHEAD_BYTES_MAX: Final = 32 * 1024 * 1024  # of all downloads together
READ_BYTES_MAX: Final = 96 * 1024 * 1024  # chunks that all downloads together hold while their clients take them
READ_WAIT_S_MAX: Final = 10.0  # how long a download waits for its part of that
BACKFILL_PAGE_CHUNKS: Final = 1000
BACKFILL_QUEUE_CHUNKS_MAX: Final = 10_000
READY_LAG_ENTRIES_MAX: Final = 10_000
EVERYWHERE_POLL_S: Final = 0.005  # how often ack=all looks whether the members have confirmed
DISK_FREE_BYTES_MIN: Final = 64 * 1024 * 1024

# Examining a cluster (raftfs doctor).
DOCTOR_ASK_S_MAX: Final = 3.0  # a member that says nothing for so long is frozen, or cannot be reached
DOCTOR_LOOKS_MAX: Final = 3  # what passes by itself, as an election does, is gone when one looks again
DOCTOR_LOOK_PAUSE_S: Final = 1.0
DOCTOR_CHUNKS_S_MAX: Final = 20.0  # chunks are looked for every few seconds, and fetched when they lack twice
DOCTOR_LAG_ENTRIES_MAX: Final = 1000
DOCTOR_CLOCKS_APART_MS_MAX: Final = 1000
DOCTOR_DISK_FREE_PERCENTS_MIN: Final = 10

# Housekeeping.
CHUNK_GRACE_S_DEFAULT: Final = 3600.0
UPLOAD_EXPIRY_S_DEFAULT: Final = 24 * 3600.0
CLOCK_JUMP_S_MIN: Final = 1.0  # clocks that are only disciplined drift less than this from one collection to the next
COLLECT_PERIOD_S_DEFAULT: Final = 60.0
BACKFILL_PERIOD_S_DEFAULT: Final = 5.0

# Client library.
CLIENT_DEADLINE_S_DEFAULT: Final = 30.0
CLIENT_ATTEMPT_S_DEFAULT: Final = 10.0  # an attempt on which nothing moves for this long is given up
CLIENT_CONNECT_S_DEFAULT: Final = 3.0
CLIENT_RETRY_DELAY_S_MIN: Final = 0.05
CLIENT_RETRY_DELAY_S_MAX: Final = 2.0
CLIENT_ATTEMPTS_MAX: Final = 1000  # backstop behind the deadline
CLIENT_RESUMES_WITHOUT_PROGRESS_MAX: Final = 20
CLIENT_CONNECTIONS_MAX: Final = 100
CLIENT_TRANSFERS_AT_ONCE_DEFAULT: Final = 8
CLIENT_TRANSFERS_AT_ONCE_MAX: Final = 64
CLIENT_BLOCK_BYTES: Final = 1024 * 1024  # piece in which bodies are read from and written to local files
CLIENT_ANSWER_BYTES_MAX: Final = 128 * 1024 * 1024  # JSON answers; a full page with full metadata fits

# Backups.
BACKUP_BUNDLED_BYTES_MAX: Final = 32 * 1024  # chunks up to this share an object; the others are one each
BACKUP_BUNDLE_BYTES: Final = CHUNK_BYTES
BACKUP_CHUNKS_AT_ONCE_DEFAULT: Final = 4
BACKUP_BUNDLES_HELD_MAX: Final = 8  # in memory, by a restore that reads small files from them
BACKUP_OBJECT_BYTES_MAX: Final = 64 * 1024 * 1024
BACKUP_LINES_MAX: Final = 20  # of what stands in the way of a restore
MANIFEST_LINE_BYTES_MAX: Final = 1024 * 1024
MANIFEST_LINE_CHUNKS_MAX: Final = 1000
MANIFEST_TAIL_BYTES_MAX: Final = 1024

# The state database of a node.
STATE_WRITER_CACHE_BYTES: Final = 32 * 1024 * 1024
STATE_READER_CACHE_BYTES: Final = 8 * 1024 * 1024
STATE_WAL_BYTES: Final = 32 * 1024 * 1024  # about this much is applied between two checkpoints
COPY_ENTRIES_MAX: Final = 100_000  # files and directories in one copy: it is one transaction on every node
FINGERPRINT_BYTES_MAX: Final = 64
OUTCOMES_PRUNED_MAX: Final = 1024  # by age, for each entry
CLOCK_MS_MAX: Final = 2**53  # what JSON's readers can hold

# Lists.
GLOB_BYTES_MAX: Final = 1024
PAGE_BYTES_MAX: Final = 4 * 1024 * 1024  # a page ends early rather than grow beyond about this
PAGE_SCAN_ENTRIES_MAX: Final = 100_000  # entries looked at for one page, matching or not
PAGE_BUFFER_ENTRIES_MAX: Final = 4096  # read ahead by a recursive list, over all levels
