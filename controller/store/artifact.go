package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxNameLen is the longest name of a file in bytes (NAME_MAX of Linux's file
// systems).
const maxNameLen = 255

// ErrContent is what Put's error Is where the content is not what the manifest
// says.
var ErrContent = errors.New("the content is not what was announced")

// Incoming is the files of one trial on their way in. They become part of the
// trial when Commit takes them, all at once, and else are discarded.
type Incoming struct {
	store  *Store
	runID  string
	number uint32
	dir    string
	files  []*tcplabv1.Artifact
}

// Receive makes room for the files of a trial. End it with Commit or Discard.
func (s *Store) Receive(runID string, number uint32) (*Incoming, error) {
	const op = "make room for files"
	if err := os.MkdirAll(s.path(incomingDir), 0o700); err != nil {
		return nil, storageError(s.dir, op, err)
	}
	dir, err := os.MkdirTemp(s.path(incomingDir), fmt.Sprintf("%s.%d.", runID, number))
	if err != nil {
		return nil, storageError(s.dir, op, err)
	}
	return &Incoming{store: s, runID: runID, number: number, dir: dir}, nil
}

// Put stores one file from r, which must hold exactly what artifact announces;
// where it does not, the error Is ErrContent. When it returns nil the content
// is on disk.
func (in *Incoming) Put(artifact *tcplabv1.Artifact, r io.Reader) (err error) {
	name := artifact.GetName()
	if !plainName(name) {
		return fmt.Errorf("artifact %q: not a plain file name: %w", name, ErrContent)
	}
	op := "store file " + name
	file, err := os.OpenFile(filepath.Join(in.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("artifact %q: announced twice: %w", name, ErrContent)
	}
	if err != nil {
		return storageError(in.store.dir, op, err)
	}
	defer func() { err = errors.Join(err, storageError(in.store.dir, op, file.Close())) }()
	hash := sha256.New()
	// One byte more than announced tells a longer content from a whole one.
	disk := &diskWriter{file: file}
	n, err := io.Copy(io.MultiWriter(disk, hash), io.LimitReader(r, int64(artifact.GetSize())+1))
	switch {
	case disk.err != nil:
		return storageError(in.store.dir, op, disk.err)
	case err != nil:
		return fmt.Errorf("artifact %q: %w", name, err)
	case uint64(n) != artifact.GetSize():
		return fmt.Errorf("artifact %q: %d bytes announced, %d or more came: %w", name, artifact.GetSize(), n, ErrContent)
	case !bytes.Equal(hash.Sum(nil), artifact.GetSha256()):
		return fmt.Errorf("artifact %q: its SHA-256 is %x, announced was %x: %w", name, hash.Sum(nil), artifact.GetSha256(), ErrContent)
	}
	if err := file.Sync(); err != nil {
		return storageError(in.store.dir, op, err)
	}
	in.files = append(in.files, artifact)
	return nil
}

// diskWriter remembers the file's own error, to tell it from the reader's.
type diskWriter struct {
	file *os.File
	err  error
}

func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.err = err
	return n, err
}

// Discard deletes what came. After Commit it does nothing.
func (in *Incoming) Discard() error {
	return storageError(in.store.dir, "discard files", os.RemoveAll(in.dir))
}

// settle moves the files to their place, where nothing lists them yet.
func (in *Incoming) settle() error {
	const op = "move files to their place"
	place := in.store.artifactDir(in.runID, in.number)
	for _, step := range []func() error{
		func() error { return syncDir(in.dir) },
		func() error { return os.MkdirAll(filepath.Dir(place), 0o700) },
		func() error { return os.Rename(in.dir, place) },
		func() error { return syncDir(filepath.Dir(place)) },
		func() error { return syncDir(in.store.path(artifactsDir)) },
	} {
		if err := step(); err != nil {
			return storageError(in.store.dir, op, err)
		}
	}
	return nil
}

// unsettle deletes the files after a transaction that failed, so that a full
// disk has room to say so. After an error of the disk itself they stay: the
// transaction may turn out to be whole when the log is read again.
func (in *Incoming) unsettle(cause error) {
	if rpcerr.From(cause).Code == codes.Internal {
		return
	}
	if err := os.RemoveAll(in.store.artifactDir(in.runID, in.number)); err != nil {
		in.store.log.Warn("files of a trial that was not stored are left", "run", in.runID, "trial", in.number, "error", err)
	}
}

// list writes the manifest.
func (in *Incoming) list(ctx context.Context, conn *sql.Conn) error {
	for _, f := range in.files {
		_, err := conn.ExecContext(ctx, "INSERT INTO artifacts (run_id, number, name, size, sha256) VALUES (?, ?, ?, ?, ?)",
			in.runID, in.number, f.GetName(), f.GetSize(), f.GetSha256())
		if err != nil {
			return err
		}
	}
	return nil
}

// OpenArtifact opens a file of a trial. Errors: NotFound where no manifest
// lists it; Storage where it is not as long as the manifest says.
func (s *Store) OpenArtifact(ctx context.Context, runID string, number uint32, name string) (io.ReadCloser, error) {
	op := "open file " + name
	var size int64
	err := s.reader.QueryRowContext(ctx, "SELECT size FROM artifacts WHERE run_id = ? AND number = ? AND name = ?", runID, number, name).Scan(&size)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "trial %s.%d has no file %q", runID, number, name)
	}
	if err != nil {
		return nil, storageError(s.dir, op, err)
	}
	file, err := os.Open(filepath.Join(s.artifactDir(runID, number), name))
	if err != nil {
		return nil, storageError(s.dir, op, err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("it has %d bytes of %d", info.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(storageError(s.dir, op, err), file.Close())
	}
	return file, nil
}

func (s *Store) artifactDir(runID string, number uint32) string {
	return s.path(artifactsDir, runID, fmt.Sprint(number))
}

func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxNameLen && !strings.ContainsAny(name, "/\\\x00")
}

// syncDir puts a directory's entries on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
