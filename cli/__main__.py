"""``python -m raftfs_cli`` is ``raftfs``."""

from raftfs_cli.main import main

if __name__ == "__main__":
    main()
