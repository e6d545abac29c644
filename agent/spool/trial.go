package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Trial is a trial that is being written. It belongs to one goroutine, and ends
// with Seal or Discard.
type Trial struct {
	spool *Spool
	id    string
	dir   string
}

// Begin makes room for a trial. One that is already there is ALREADY_EXISTS.
// A disk that is full or not writable is told here, before anything is measured.
func (s *Spool) Begin(id string) (*Trial, error) {
	if !plain.MatchString(id) {
		return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "%q is no ID of a trial", id)
	}
	if s.most > 0 {
		switch used, err := s.used(); {
		case err != nil:
			return nil, storage("measure the spool", err)
		case used >= s.most:
			return nil, rpcerr.New(codes.ResourceExhausted, rpcerr.Storage, "Let the controller fetch what waits, or raise limits.spool in the host's policy.",
				"results of %d bytes wait here, and %d are permitted", used, s.most)
		}
	}
	t := &Trial{spool: s, id: id, dir: filepath.Join(s.dir, id)}
	if err := os.Mkdir(t.dir, newFolder); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "Give each trial an ID of its own.", "trial %s is already there", id)
		}
		return nil, storage("make room for trial "+id, err)
	}
	// A folder may still be made on a disk that takes no more data.
	if err := t.put(partial+"probe", make([]byte, 4096)); err != nil {
		return nil, errors.Join(storage("make room for trial "+id, err), t.Discard())
	}
	if err := os.Remove(filepath.Join(t.dir, partial+"probe")); err != nil {
		return nil, errors.Join(storage("make room for trial "+id, err), t.Discard())
	}
	return t, nil
}

// Create starts an artifact. The caller ends it with [File.Commit] before Seal;
// without that it is no part of the trial.
func (t *Trial) Create(name string) (*File, error) {
	if !plain.MatchString(name) {
		return nil, fmt.Errorf("%q is no name of an artifact", name)
	}
	file, err := os.OpenFile(filepath.Join(t.dir, partial+name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, storage("create "+name+" of trial "+t.id, err)
	}
	return &File{trial: t, name: name, file: file, sum: sha256.New()}, nil
}

// Open reads an artifact back, after its Commit. The caller closes it.
func (t *Trial) Open(name string) (*os.File, error) {
	if !plain.MatchString(name) {
		return nil, fmt.Errorf("%q is no name of an artifact", name)
	}
	file, err := os.Open(filepath.Join(t.dir, name))
	if err != nil {
		return nil, storage("read "+name+" of trial "+t.id, err)
	}
	return file, nil
}

// Seal writes the result and makes the trial whole. After an error the trial is
// not sealed.
func (t *Trial) Seal(ended *tcplabv1.TrialEnded) error {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(ended)
	if err != nil {
		return fmt.Errorf("encode the result of trial %s: %w", t.id, err)
	}
	sum := sha256.Sum256(encoded)
	if err := t.put(sealName, append(sum[:], encoded...)); err != nil {
		return storage("store the result of trial "+t.id, err)
	}
	if err := syncDir(t.spool.dir); err != nil {
		return storage("store the result of trial "+t.id, err)
	}
	return nil
}

// Discard removes the trial and all that was written for it.
func (t *Trial) Discard() error { return t.spool.Delete(t.id) }

// put writes a small file whole, or not at all.
func (t *Trial) put(name string, content []byte) error {
	temporary := filepath.Join(t.dir, partial+"put")
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, filepath.Join(t.dir, name)); err != nil {
		return err
	}
	return syncDir(t.dir)
}

// File is an artifact that is being written, by one goroutine at a time.
type File struct {
	trial *Trial
	name  string
	file  *os.File
	sum   hash.Hash
	size  uint64
	err   error // the first that a write met
}

// Write appends. It implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	f.sum.Write(p[:n])
	f.size += uint64(n)
	if err != nil {
		err = storage("write "+f.name+" of trial "+f.trial.id, err)
		if f.err == nil {
			f.err = err
		}
	}
	return n, err
}

// Commit makes the file a part of the trial and describes it. After an error,
// of an earlier write too, it is none.
func (f *File) Commit() (*tcplabv1.Artifact, error) {
	if f.err != nil {
		return nil, errors.Join(f.err, f.Abandon())
	}
	if err := errors.Join(f.file.Sync(), f.file.Close()); err != nil {
		return nil, storage("store "+f.name+" of trial "+f.trial.id, err)
	}
	if err := os.Rename(f.file.Name(), filepath.Join(f.trial.dir, f.name)); err != nil {
		return nil, storage("store "+f.name+" of trial "+f.trial.id, err)
	}
	if err := syncDir(f.trial.dir); err != nil {
		return nil, storage("store "+f.name+" of trial "+f.trial.id, err)
	}
	return &tcplabv1.Artifact{Name: f.name, Size: f.size, Sha256: f.sum.Sum(nil)}, nil
}

// Abandon removes the file. After Commit or Abandon it does nothing.
func (f *File) Abandon() error {
	if err := f.file.Close(); errors.Is(err, os.ErrClosed) {
		return nil
	}
	return os.Remove(f.file.Name())
}

// syncDir makes names in a folder durable.
func syncDir(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
