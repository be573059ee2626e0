"""Every byte of a stopped node's disk, damaged in turn."""
