// Package store keeps runs, their trials, events and files in a state
// directory: what is asked for in SQLite, what was sampled as files beside it.
//
//	tcplab.db    runs, trials, results, events, manifests of files
//	lock         held by the one process that drives runs; says who that is
//	artifacts/   RUN/TRIAL/NAME, each listed in the database
//	incoming/    files on their way in; emptied at each Open
//
// One process drives (Open), any number read beside it (OpenReader). What
// Commit has returned from survives the loss of power: the database runs with
// a write-ahead log and synchronous=FULL, and files are synced and renamed
// into place before the transaction that lists them. A file that no manifest
// lists is not part of a result, and a run that its process left unended is
// marked as interrupted at the next Open.
//
// It refuses to change a run that has ended, and a database that a newer
// tcplab wrote. All errors about the directory itself are rpcerr errors of
// reason Storage and say what to do.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"google.golang.org/grpc/codes"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// Names in the state directory.
const (
	databaseFile = "tcplab.db"
	lockFile     = "lock"
	artifactsDir = "artifacts"
	incomingDir  = "incoming"
)

// busyTimeout is how long a statement waits for another process's write: only
// a migration or a checkpoint, since one process writes.
const busyTimeout = 5 * time.Second

//go:embed migrations/*.sql
var migrations embed.FS

// Options say how Open takes the directory. The zero value fails at once
// where another process has it.
type Options struct {
	// Wait is how long to wait for the process that has the directory. 0:
	// not at all; negative: until the context ends.
	Wait time.Duration
	// Waiting is called once, before the wait begins. May be nil.
	Waiting func(Holder)
	// Lasting: unended runs whose plan is kept stay as they are, for Unended.
	Lasting bool
	// Log takes what was repaired. Nil: nothing is logged.
	Log *slog.Logger
}

// Store is an open state directory. Its methods may be called from any
// goroutine.
type Store struct {
	dir     string
	log     *slog.Logger
	lock    *lock   // nil in a reader
	writer  *sql.DB // one connection; nil in a reader
	reader  *sql.DB
	commits *committer // nil in a reader
	changed broadcast

	closing sync.Once
	closed  error
}

// Open opens dir for the one process that drives runs, and makes it where it
// is not there (mode 0700). It waits for another process as opts say, else or
// after that it returns an error that Is ErrLocked. Runs that a dead process
// left unended are FAILED (interrupted) afterwards, and files it had not
// finished are gone.
func Open(ctx context.Context, dir string, opts Options) (_ *Store, err error) {
	s := &Store{dir: dir, log: opts.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, storageError(dir, "make the state directory", err)
	}
	if s.lock, err = acquire(ctx, filepath.Join(dir, lockFile), opts); err != nil {
		return nil, err
	}
	if s.writer, err = openDatabase(s.path(databaseFile), "_txlock=immediate"); err != nil {
		return nil, storageError(dir, "open the database", err)
	}
	s.writer.SetMaxOpenConns(1)
	if err := migrate(ctx, s.writer); err != nil {
		return nil, storageError(dir, "prepare the database", err)
	}
	if s.reader, err = openDatabase(s.path(databaseFile), "_pragma=query_only(1)"); err != nil {
		return nil, storageError(dir, "open the database", err)
	}
	s.commits = newCommitter(s)
	if err := s.recover(ctx, opts.Lasting); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenReader opens dir for reading, also while another process drives. A
// directory that holds no database yet reads as an empty one. Methods that
// write return an error, and Watch does not wait for events.
func OpenReader(ctx context.Context, dir string) (_ *Store, err error) {
	s := &Store{dir: dir, log: slog.New(slog.DiscardHandler)}
	path := s.path(databaseFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		s.reader, err = openEmpty(ctx)
		if err != nil {
			return nil, storageError(dir, "make an empty database", err)
		}
		return s, nil
	} else if err != nil {
		return nil, storageError(dir, "look for the database", err)
	}
	if s.reader, err = openDatabase(path, "mode=rw&_pragma=query_only(1)"); err != nil {
		return nil, storageError(dir, "open the database", err)
	}
	if err := checkVersion(ctx, s.reader); err != nil {
		return nil, errors.Join(storageError(dir, "read the database", err), s.Close())
	}
	return s, nil
}

// Dir is the state directory.
func (s *Store) Dir() string { return s.dir }

// ReadOnly says whether another process drives the runs of this directory.
func (s *Store) ReadOnly() bool { return s.commits == nil }

// Close ends all watches, closes the database and gives the directory back.
// Calling it again returns the same.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.changed.close()
		if s.commits != nil {
			s.commits.end()
		}
		var errs []error
		for _, db := range []*sql.DB{s.reader, s.writer} {
			if db != nil {
				errs = append(errs, db.Close())
			}
		}
		if s.lock != nil {
			errs = append(errs, s.lock.release())
		}
		s.closed = storageError(s.dir, "close the database", errors.Join(errs...))
	})
	return s.closed
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// openDatabase opens a database file with what every connection has in
// common. Nothing is read before the first statement.
func openDatabase(path, params string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dsn := url.URL{Scheme: "file", Path: abs}
	dsn.RawQuery = fmt.Sprintf("_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&%s",
		busyTimeout.Milliseconds(), params)
	return sql.Open("sqlite", dsn.String())
}

// openEmpty is a database in memory with the schema and no row.
func openEmpty(ctx context.Context) (*sql.DB, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would be a database of its own
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// migrate brings the schema to this program's version.
func migrate(ctx context.Context, db *sql.DB) error {
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	have, want, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > want {
		return newerDatabase(have, want)
	}
	_, err = provider.Up(ctx)
	return err
}

// checkVersion accepts a database of exactly this program's version: a reader
// cannot migrate.
func checkVersion(ctx context.Context, db *sql.DB) error {
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	have, want, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return err
	case have > want:
		return newerDatabase(have, want)
	case have < want:
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Storage, "read it again when the other tcplab has ended",
			"the database has version %d, this tcplab reads version %d, and another tcplab uses it", have, want)
	}
	return nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files)
}

func newerDatabase(have, want int64) error {
	return rpcerr.New(codes.FailedPrecondition, rpcerr.Storage, "use that tcplab, or another state directory",
		"the database has version %d and was written by a newer tcplab; this one knows version %d", have, want)
}
