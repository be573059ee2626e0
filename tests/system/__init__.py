"""Tests with real processes: what the cluster must survive, and what it must never do meanwhile."""
