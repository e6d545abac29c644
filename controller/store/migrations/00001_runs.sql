-- Columns hold what is asked for; messages of the contract are kept whole
-- beside them, as protobuf, so that a new field needs no migration.

-- +goose Up

-- One row a run. seq is the order of creation; cursor is that of the last
-- event; state repeats run.state (1 pending, 2 running, above: ended).
CREATE TABLE runs (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT    NOT NULL UNIQUE,
    lab            TEXT    NOT NULL,
    state          INTEGER NOT NULL,
    request_id     TEXT    UNIQUE,
    request_digest BLOB,
    cursor         INTEGER NOT NULL DEFAULT 0,
    run            BLOB    NOT NULL
) STRICT;

CREATE INDEX runs_of_lab ON runs (lab, seq);
CREATE INDEX runs_unended ON runs (seq) WHERE state < 3;

CREATE TABLE run_labels (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (run_id, name)
) STRICT;

CREATE INDEX runs_of_label ON run_labels (name, value);

-- One row a trial that has started. trial is the message without its result.
CREATE TABLE trials (
    run_id TEXT    NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    state  INTEGER NOT NULL,
    trial  BLOB    NOT NULL,
    result BLOB,
    PRIMARY KEY (run_id, number)
) STRICT;

-- The manifest: a file that is not listed here is not there.
CREATE TABLE artifacts (
    run_id TEXT    NOT NULL,
    number INTEGER NOT NULL,
    name   TEXT    NOT NULL,
    size   INTEGER NOT NULL,
    sha256 BLOB    NOT NULL,
    PRIMARY KEY (run_id, number, name),
    FOREIGN KEY (run_id, number) REFERENCES trials (run_id, number) ON DELETE CASCADE
) STRICT;

-- Cursors of a run count from 1 without a gap. judged marks the result of an
-- expectation, which reports read.
CREATE TABLE events (
    run_id TEXT    NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    cursor INTEGER NOT NULL,
    judged INTEGER NOT NULL,
    event  BLOB    NOT NULL,
    PRIMARY KEY (run_id, cursor)
) STRICT;

CREATE INDEX events_judged ON events (run_id, cursor) WHERE judged = 1;

-- +goose Down
DROP TABLE events;
DROP TABLE artifacts;
DROP TABLE trials;
DROP TABLE run_labels;
DROP TABLE runs;
