"""Measurements of raftfs, each beside what the machine itself can do, measured in the same run. See README.md."""
