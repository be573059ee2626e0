"""Copies of a whole state database: made while the writer goes on, and checked before one takes a database's place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from raftfs.errors import CorruptData
from raftfs.state.pages import PageSums, read_log
from raftfs.state.reader import Reader
from raftfs.state.schema import Applied, open_reader, translate


def copy_database(source: Path, target: Path) -> None:
    """Copy the database as it is now into the new file ``target`` (blocking; reads one moment, holds up nobody).

    The copy is not synced. Raises StorageFull, CorruptData.
    """
    db = open_reader(source)
    try:
        db.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.DatabaseError as error:
        raise translate(source, error) from error
    finally:
        db.close()


def check_copy(path: Path, check: str = "quick_check") -> Applied:
    """Look through a copy (blocking, by this pragma) and say how far it is. Raises CorruptData, DataTooNew or
    DataTooOld if it is of no use."""
    db = open_reader(path)
    try:
        found = db.execute(f"PRAGMA {check}(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise translate(path, error) from error
    finally:
        db.close()
    if found != "ok":
        raise CorruptData(f"{path}: {found}")
    reader = Reader(path)
    try:
        return reader.applied()
    finally:
        reader.close()


def check_state(path: Path) -> Applied | None:
    """Look through a whole database that nobody uses (blocking), change nothing of what it holds, and say how far it
    is; None if its log lost an end that the database holds, so that only the next start can tell. Raises CorruptData
    naming file and offset, DataTooNew or DataTooOld."""
    sums = PageSums(path)
    if sums.path.exists() and not sums.is_empty():
        db = open_reader(path)
        try:
            db.execute("BEGIN")
            seen = read_log(path)
        except sqlite3.DatabaseError as error:
            raise translate(path, error) from error
        finally:
            db.close()
        if not sums.check(seen):
            return None
    return check_copy(path, "integrity_check")
