// Package spool keeps what trials measured on disk until the controller has
// acknowledged it.
//
// Each trial has a folder. Its files are written under another name, synced
// and renamed; the result comes last and seals the folder. A folder without a
// seal is what a killed agent left, and is removed when the spool is opened; a
// sealed one stays until it is deleted, across restarts.
//
// It refuses to hand out half a result: what is read has its full length and
// checksum, or is an error. One process at a time uses a spool.
package spool

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names inside the spool.
const (
	lockName  = ".lock"
	sealName  = ".result" // SHA-256 of the rest, then a TrialEnded in protobuf's encoding
	partial   = ".partial-"
	newFolder = 0o700
)

// plain is what IDs and artifact names are made of; they become file names.
var plain = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)

// Spool is a folder of trials. It is safe for concurrent use on different
// trials.
type Spool struct {
	dir  string
	lock *os.File
	most uint64 // bytes; 0: as the disk has room
}

// Bound refuses trials when what waits has that many bytes; nothing that is there is dropped. 0: as the
// disk has room. Call it before the first Begin.
func (s *Spool) Bound(most uint64) { s.most = most }

// used is the size of all that waits, in bytes.
func (s *Spool) used() (sum uint64, err error) {
	err = filepath.WalkDir(s.dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err != nil {
			return ignoreGone(err)
		}
		sum += uint64(info.Size())
		return nil
	})
	return sum, err
}

// ignoreGone is nil for a file that was acknowledged just now.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Open makes the folder where it is missing, takes it for this process, and
// removes what was never sealed; with discard, sealed trials too. The errors are
// of the kind [rpcerr.Storage].
func Open(dir string, discard bool) (*Spool, error) {
	if err := os.MkdirAll(dir, newFolder); err != nil {
		return nil, storage("make the spool", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, storage("open the spool", err)
	}
	s := &Spool{dir: dir, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "Stop the other agent, or give this one a spool of its own.",
				"another agent uses the spool %s", dir)
		}
		return nil, storage("lock the spool", err)
	}
	if err := s.sweep(discard); err != nil {
		return nil, errors.Join(storage("sweep the spool", err), lock.Close())
	}
	return s, nil
}

// Close lets another process use the spool. Trials that are not sealed go.
func (s *Spool) Close() error {
	return errors.Join(s.sweep(false), s.lock.Close())
}

// sweep removes trials without a seal, or all.
func (s *Spool) sweep(all bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !plain.MatchString(e.Name()) {
			continue // none of the spool's
		}
		_, err := os.Stat(filepath.Join(s.dir, e.Name(), sealName))
		if err == nil && !all {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.Delete(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Result reads a sealed trial. A trial that is not there is NOT_FOUND.
func (s *Spool) Result(trial string) (*tcplabv1.TrialEnded, error) {
	if !plain.MatchString(trial) {
		return nil, missing(trial)
	}
	sealed, err := os.ReadFile(filepath.Join(s.dir, trial, sealName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(trial)
	}
	if err != nil {
		return nil, storage("read the result of trial "+trial, err)
	}
	if len(sealed) < sha256.Size || sha256.Sum256(sealed[sha256.Size:]) != [sha256.Size]byte(sealed) {
		return nil, rpcerr.New(codes.DataLoss, rpcerr.Storage, "Check the disk, and run the trial again.",
			"the result of trial %s is damaged on disk", trial)
	}
	ended := &tcplabv1.TrialEnded{}
	if err := proto.Unmarshal(sealed[sha256.Size:], ended); err != nil {
		return nil, storage("read the result of trial "+trial, err)
	}
	return ended, nil
}

// Artifact opens a file of a sealed trial. The caller closes it. A file that is
// not there is NOT_FOUND.
func (s *Spool) Artifact(trial, name string) (*os.File, error) {
	if !plain.MatchString(trial) || !plain.MatchString(name) {
		return nil, missing(trial + "/" + name)
	}
	if _, err := os.Stat(filepath.Join(s.dir, trial, sealName)); errors.Is(err, fs.ErrNotExist) {
		return nil, missing(trial)
	}
	file, err := os.Open(filepath.Join(s.dir, trial, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(trial + "/" + name)
	}
	if err != nil {
		return nil, storage("open "+name+" of trial "+trial, err)
	}
	return file, nil
}

// Delete removes a trial with its files. One that is not there is no error.
func (s *Spool) Delete(trial string) error {
	if !plain.MatchString(trial) {
		return nil
	}
	dir := filepath.Join(s.dir, trial)
	// The seal first: what is left by a power cut in between is swept.
	if err := os.Remove(filepath.Join(dir, sealName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storage("delete trial "+trial, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return storage("delete trial "+trial, err)
	}
	return nil
}

// missing says that the spool has no such thing.
func missing(what string) error {
	return rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "there is no %q on this host", what)
}

// storage says that the disk failed the operation, and what to do about it.
func storage(operation string, err error) error {
	remedy := "Choose another state directory, or make this one writable."
	code := codes.FailedPrecondition
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		remedy, code = "Free space on the disk, or choose a state directory on another.", codes.ResourceExhausted
	}
	return rpcerr.New(code, rpcerr.Storage, remedy, "%s: %w", operation, err)
}
