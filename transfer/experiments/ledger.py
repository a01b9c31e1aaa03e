"""The ledger of runs: which are to be made, which are being made and by whom, what came out. One SQLite file.

Several processes may share it; every change is one transaction. A run is in one of four states:

    waiting   to be made, or to be gone on with
    running   claimed: with the process (host, pid, when it started) that makes it, and a heartbeat
    done      with its result
    failed    crashed more often than allowed, or for a reason that trying again does not mend

A kill at any moment leaves it consistent. Who claims a run gets a token; whatever is written about the run later
carries the token and is ignored where the run was given to somebody else meanwhile. A claim first bears the pid of who
claimed, until the process that makes the run confirms it with its own: so at no moment is a run being made while the
ledger names a dead process. Where that process is gone, the run is waiting again (`claim` looks).

SQLite's rollback journal, not its write-ahead log: that one needs shared memory, and runs end too seldom to matter.
On network file systems SQLite's locks are only as good as the file system's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.experiments.description import Description
from transfer.experiments.processes import process_is_alive, process_start

VERSION = 1
STALE_SECONDS = 600.0
"""A run on another host whose heartbeat is older is given to somebody else; on this host the process is looked at."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    token TEXT, host TEXT, pid INTEGER, process_start TEXT,  -- of who makes it
    started REAL, heartbeat REAL,                            -- of this attempt, seconds since 1970
    seconds REAL NOT NULL DEFAULT 0,                         -- of all attempts
    failures INTEGER NOT NULL DEFAULT 0,
    error TEXT,                                              -- the log's tail at the last failure
    result TEXT, facts TEXT,                                 -- JSON
    created REAL NOT NULL, finished REAL
);
CREATE TABLE IF NOT EXISTS members (
    experiment TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, key TEXT NOT NULL REFERENCES runs,
    PRIMARY KEY (experiment, arm, seed)
);
"""


@dataclass(frozen=True)
class Claim:
    """The right to make a run."""

    key: str
    token: str
    description: Description


@dataclass(frozen=True)
class Row:
    """What the ledger says of a run."""

    key: str
    description: Description
    state: str
    token: str | None
    host: str | None
    pid: int | None
    process_start: str | None
    started: float | None
    heartbeat: float | None
    seconds: float
    failures: int
    error: str | None
    result: dict[str, Any] | None
    facts: dict[str, Any] | None
    """Of who made it: host, device, code and versions."""
    created: float
    finished: float | None


class Ledger:
    """One connection to the file; for one thread of one process.

    Args:
        path: of the file, made where it is not there.
    Raises:
        UserError: not a ledger, of another version, or not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # autocommit: transactions are begun by hand. A minute's patience with others' transactions.
            self.connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            self.connection.row_factory = sqlite3.Row
            version = self.connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise _user_error(path, f"is of version {version}, this program's is {VERSION}")
            if version == 0:
                self._create(path)
        except (sqlite3.DatabaseError, OSError) as error:
            raise _user_error(path, f"cannot be used: {error}") from error

    def _create(self, path: Path) -> None:
        with self._transaction():
            tables = {row[0] for row in self.connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if tables - {"runs", "members"}:
                raise _user_error(path, f"has other tables ({', '.join(sorted(tables))}): it is not a ledger")
            for statement in SCHEMA.split(";")[:-1]:
                self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def enter(self, experiment: str, members: Iterable[tuple[str, Description]]) -> list[str]:
        """Make an experiment's runs known; those that are known already stay as they are.

        Args:
            experiment: its name.
            members: (arm, description), in the order in which they are to be made.
        Returns:
            The keys, in that order.
        """
        keys = []
        with self._transaction():
            for arm, description in members:
                key = description.key
                self.connection.execute(
                    "INSERT OR IGNORE INTO runs (key, description, created) VALUES (?, ?, ?)",
                    (key, description.to_json(), time.time()),
                )
                self.connection.execute(
                    "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", (experiment, arm, description.seed, key)
                )
                keys.append(key)
        return list(dict.fromkeys(keys))

    def members(self, experiment: str) -> dict[tuple[str, int], Row]:
        """(arm, seed) -> its run, for all that was ever entered for the experiment."""
        found = self.connection.execute(
            "SELECT arm, seed, runs.* FROM members JOIN runs USING (key) WHERE experiment = ?", (experiment,)
        )
        return {(row["arm"], row["seed"]): _row(row) for row in found}

    def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """The runs of these keys."""
        found = {row["key"]: row for row in self.connection.execute("SELECT * FROM runs")}
        return {key: _row(found[key]) for key in keys if key in found}

    def retry_failed(self, keys: Sequence[str]) -> int:
        """Let failed runs wait again, with all their attempts; returns how many."""
        with self._transaction():
            failed = [key for key, row in self.rows(keys).items() if row.state == "failed"]
            for key in failed:
                self.connection.execute("UPDATE runs SET state = 'waiting', failures = 0 WHERE key = ?", (key,))
        return len(failed)

    def claim(self, keys: Sequence[str]) -> Claim | None:
        """Take the first of the waiting runs; those whose process is gone are waiting, too.

        Args:
            keys: of the runs that may be taken, the preferred ones first.
        Returns:
            The claim, in this process's name; None where none is waiting.
        """
        with self._transaction():
            rows = self.rows(keys)
            for row in rows.values():
                if row.state == "running" and _is_gone(row):
                    lasted = max(0.0, (row.heartbeat or 0.0) - (row.started or 0.0))
                    self.connection.execute(
                        "UPDATE runs SET state = 'waiting', token = NULL, seconds = seconds + ? WHERE key = ?",
                        (lasted, row.key),
                    )
            free = {row[0] for row in self.connection.execute("SELECT key FROM runs WHERE state = 'waiting'")}
            key = next((key for key in rows if key in free), None)
            if key is None:
                return None
            token, now = uuid.uuid4().hex, time.time()
            self.connection.execute(
                "UPDATE runs SET state = 'running', token = ?, started = ?, heartbeat = ? WHERE key = ?",
                (token, now, now, key),
            )
            self._name_process(key)
            return Claim(key, token, rows[key].description)

    def confirm(self, claim: Claim) -> bool:
        """Say that this process makes the run now. False: it must not, somebody else has it."""
        with self._transaction():
            holds = self._holds(claim)
            if holds:
                self._name_process(claim.key)
                self.connection.execute("UPDATE runs SET started = ? WHERE key = ?", (time.time(), claim.key))
            return holds

    def beat(self, claim: Claim) -> bool:
        """Note that the run goes on. False: somebody else has it."""
        return self._write(claim, "heartbeat = ?", time.time())

    def finish(self, claim: Claim, result: dict[str, Any], facts: dict[str, Any]) -> bool:
        """Note the result. False: somebody else has the run, nothing was noted.

        Args:
            claim: the right to say so.
            result: plain types; of the run directory's results.json.
            facts: host, device, code: see `Row`.
        """
        return self._end(claim, "done", "result = ?, facts = ?", json.dumps(result), json.dumps(facts))

    def give_back(self, claim: Claim) -> bool:
        """The run was interrupted: it waits for somebody to go on with it."""
        return self._end(claim, "waiting")

    def fail(self, claim: Claim, error: str, *, attempts: int) -> bool:
        """The run crashed: it waits for another attempt, or is over.

        Args:
            claim: the right to say so.
            error: the log's tail.
            attempts: how many it may have in all; 1: no other.
        """
        row = self.rows([claim.key])[claim.key]
        over = row.failures + 1 >= attempts
        return self._end(claim, "failed" if over else "waiting", "failures = failures + 1, error = ?", error)

    def holds(self, claim: Claim) -> bool:
        """Whether the run is still running under this claim."""
        with self._transaction():
            return self._holds(claim)

    def _holds(self, claim: Claim) -> bool:
        found = self.connection.execute("SELECT token FROM runs WHERE key = ? AND state = 'running'", (claim.key,))
        row = found.fetchone()
        return row is not None and row["token"] == claim.token

    def _name_process(self, key: str) -> None:
        pid = os.getpid()
        self.connection.execute(
            "UPDATE runs SET host = ?, pid = ?, process_start = ? WHERE key = ?",
            (socket.gethostname(), pid, process_start(pid), key),
        )

    def _end(self, claim: Claim, state: str, more: str = "", *values: str) -> bool:
        now = time.time()
        changes = ["state = ?", "token = NULL", "finished = ?", "seconds = seconds + ? - started"]
        return self._write(claim, ", ".join([*changes, *([more] if more else [])]), state, now, now, *values)

    def _write(self, claim: Claim, changes: str, *values: str | float) -> bool:
        """Change the claimed run, unless somebody else has it."""
        with self._transaction():
            done = self.connection.execute(
                f"UPDATE runs SET {changes} WHERE key = ? AND state = 'running' AND token = ?",
                (*values, claim.key, claim.token),
            )
            return done.rowcount == 1


def _is_gone(row: Row) -> bool:
    """Whether nobody makes this running run any more."""
    if row.host == socket.gethostname():
        return not process_is_alive(row.pid or 0, row.process_start)
    return time.time() - (row.heartbeat or 0.0) > STALE_SECONDS


def _row(row: sqlite3.Row) -> Row:
    values = {name: row[name] for name in Row.__dataclass_fields__}
    values["description"] = Description.from_json(values["description"])
    for name in ("result", "facts"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Row(**values)


def _user_error(path: Path, problem: str) -> Exception:
    from transfer.types import UserError  # brings torch

    return UserError(f"ledger {str(path)!r} {problem}; give another --work-dir")
