-- Who may do what, which hosts there are, and what a controller needs to take up its runs where
-- another process left them. Messages are kept whole, as in 00001.

-- +goose Up

-- Counters of the controller. term: how often one has started on this directory.
CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

-- Who has a certificate. enrolment stands in it, and tells this owner of the name from earlier ones.
CREATE TABLE principals (
    kind      INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    enrolment TEXT    NOT NULL,
    principal BLOB    NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

-- A token that is used is deleted. secret is the SHA-256 of it; expires is in milliseconds since 1970.
CREATE TABLE tokens (
    id      TEXT    PRIMARY KEY,
    secret  BLOB    NOT NULL,
    expires INTEGER NOT NULL,
    token   BLOB    NOT NULL
) STRICT;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    entry  BLOB    NOT NULL
) STRICT;

-- host is a FleetHost without what is only so while it is connected.
CREATE TABLE hosts (
    name TEXT PRIMARY KEY,
    host BLOB NOT NULL
) STRICT;

-- What an unended run is to do: a RunPlan.
CREATE TABLE plans (
    run_id TEXT PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    plan   BLOB NOT NULL
) STRICT;

-- +goose Down
DROP TABLE plans;
DROP TABLE hosts;
DROP TABLE audit;
DROP TABLE tokens;
DROP TABLE principals;
DROP TABLE counters;
