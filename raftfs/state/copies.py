"""Copies of a whole state database: made while the writer goes on, and checked before one takes a database's place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from raftfs.errors import CorruptData
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


def check_copy(path: Path) -> Applied:
    """Look through a copy (blocking) and say how far it is. Raises CorruptData, DataTooNew or DataTooOld if it
    is of no use."""
    db = open_reader(path)
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
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
