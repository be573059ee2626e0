"""The use cases on three services in one process: real chunk stores and state machines, faked log and network."""
