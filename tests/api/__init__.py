"""The API of a node over real sockets, a real service and the in-memory log."""
