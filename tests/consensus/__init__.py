"""What PySyncObj does when nobody guards it, and what raftfs does in the same schedules: one file for each rule."""
