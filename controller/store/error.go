package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"google.golang.org/grpc/codes"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// primaryCode takes SQLite's primary result code from an extended one
// (https://sqlite.org/rescode.html).
const primaryCode = 0xff

// storageError says what could not be done in dir and what helps. Nil stays
// nil; errors that are of the contract already, or of a context, keep their
// kind.
func storageError(dir, op string, err error) error {
	var known *rpcerr.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", op, err)
	}
	code, remedy := codes.Internal, "see whether the disk is sound; another state directory may be used"
	switch {
	case isFull(err):
		code, remedy = codes.ResourceExhausted, "free space on the file system of "+dir+", or use another state directory"
	case isUnwritable(err):
		code, remedy = codes.FailedPrecondition, "make "+dir+" writable, or use another state directory"
	}
	return rpcerr.New(code, rpcerr.Storage, remedy, "%s in %s: %w", op, dir, err)
}

// isFull says whether there is no room left.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || sqliteCode(err) == sqlite3.SQLITE_FULL
}

// isUnwritable says whether the directory refuses to be written.
func isUnwritable(err error) bool {
	switch sqliteCode(err) {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return true
	}
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR)
}

// isUnique says whether a row of that key is there already.
func isUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}

// isTaken says whether a row of that primary key is there already.
func isTaken(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

// sqliteCode is the primary result code of an error of SQLite, else 0.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & primaryCode
	}
	return 0
}
