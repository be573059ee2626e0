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
UPLOADS_AT_ONCE_MAX: Final = 8
BUFFERED_BODY_BYTES_MAX: Final = 1024 * 1024  # bodies up to this are kept so that they can be retried

# Metadata of a file.
METADATA_BYTES_MAX: Final = 8 * 1024
METADATA_KEYS_MAX: Final = 64
CONTENT_TYPE_BYTES_MAX: Final = 255
IDEMPOTENCY_KEY_BYTES_MAX: Final = 255
IDEMPOTENCY_KEYS_MAX: Final = 1_000_000
IDEMPOTENCY_KEY_AGE_MS_MAX: Final = 24 * 3600 * 1000

# HTTP.
HEADER_LINE_BYTES_MAX: Final = 16 * 1024
JSON_BODY_BYTES_MAX: Final = 256 * 1024
PAGE_ENTRIES_DEFAULT: Final = 1000
PAGE_ENTRIES_MAX: Final = 10_000
REQUEST_DEADLINE_S_DEFAULT: Final = 15.0
REQUEST_DEADLINE_S_MAX: Final = 3600.0
BODY_IDLE_S_MAX: Final = 60.0  # a body that brings no byte for this long is given up

# Replicated log.
COMMAND_BYTES_MAX: Final = 256 * 1024
ENTRY_BYTES_MAX: Final = 1024 * 1024
BATCH_COMMANDS_MAX: Final = 4096
PROPOSALS_WAITING_MAX: Final = 20_000
PROPOSALS_WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
ENTRIES_IN_FLIGHT_MAX: Final = 4
APPEND_MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
PEER_BYTES_IN_FLIGHT_MAX: Final = 8 * 1024 * 1024
JOURNAL_SEGMENT_BYTES: Final = 64 * 1024 * 1024
JOURNAL_TAIL_BYTES_MAX: Final = 16 * 1024 * 1024

# Peer port.
PEER_FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
PEER_HELLO_S_MAX: Final = 5.0
PEER_CONNECTIONS_MAX: Final = 64
CHUNK_TRANSFERS_AT_ONCE_MAX: Final = 4

# Housekeeping.
CHUNK_GRACE_S_DEFAULT: Final = 3600.0
UPLOAD_EXPIRY_S_DEFAULT: Final = 24 * 3600.0
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
