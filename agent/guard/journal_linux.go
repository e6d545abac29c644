package guard

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// journalSuffix ends the names of journals in their folder.
const journalSuffix = ".journal"

// maxJournal bounds a journal that is read, in bytes: some thousand changes.
const maxJournal = 1 << 20

// Change is one change of an interface of the host's own. It is written down
// before it is made, so that it can be undone whoever made it has ended how.
type Change struct {
	Kind      string // what was changed; who undoes it knows the kinds
	Interface string // its name when the change was made
	Index     int    // its number, which is what counts: names change
	Parent    uint32 `json:",omitempty"` // where a filter hangs
	Priority  uint16 `json:",omitempty"` // of a filter
	Handle    uint32 `json:",omitempty"` // of a filter or qdisc
	Program   uint32 `json:",omitempty"` // ID of a filter's BPF program
	Name      string `json:",omitempty"` // of a filter's BPF program
}

// header is the first line of a journal.
type header struct {
	Format    int    // 1
	Boot      string // the kernel's boot_id: nothing in a kernel outlives it
	Namespace uint64 // inode of the network namespace that the changes are in
	Process   int    // who wrote it
	About     string // what for, in words
}

// journalFormat is the format that this version writes and reads.
const journalFormat = 1

// Journal is the changes of one link, on disk. It is locked by the process that
// writes it, and the lock ends with the process. It is safe for concurrent use.
type Journal struct {
	path string

	mu   sync.Mutex
	file *os.File // nil: closed
}

// JournalOptions say what a journal is about.
type JournalOptions struct {
	Dir       string // the folder; made where it is missing
	Name      string // of the file, unique in the folder; without a slash
	About     string // what the changes are for, in words
	Namespace uint64 // inode of the network namespace that they are in
}

// OpenJournal begins a journal. When it returns, its beginning is on the disk.
func OpenJournal(o JournalOptions) (_ *Journal, err error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of journals: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, o.Name+journalSuffix)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin a journal: %w", err)
	}
	j := &Journal{path: path, file: file}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = j.append(header{Format: journalFormat, Boot: boot, Namespace: o.Namespace, Process: os.Getpid(), About: o.About})
	}
	if err == nil {
		err = syncFolder(o.Dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin journal %s: %w", path, err), os.Remove(path), file.Close())
	}
	return j, nil
}

// Write writes down a change that is about to be made. When it returns nil, the
// change is on the disk and may be made.
func (j *Journal) Write(c Change) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return errors.New("the journal is closed")
	}
	if err := j.append(c); err != nil {
		return fmt.Errorf("write to journal %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) append(record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return err
	}
	return j.file.Sync()
}

// Close ends a journal all of whose changes have been undone, and removes it.
func (j *Journal) Close() error { return j.end(true) }

// Leave ends a journal and leaves it to the next rollback: something in it is
// not undone.
func (j *Journal) Leave() error { return j.end(false) }

func (j *Journal) end(remove bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	var err error
	if remove {
		// Before the lock goes with the descriptor, or another would find it unlocked.
		if err = os.Remove(j.path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		err = errors.Join(err, syncFolder(filepath.Dir(j.path)))
	}
	err = errors.Join(err, j.file.Close())
	j.file = nil
	if err != nil {
		return fmt.Errorf("end journal %s: %w", j.path, err)
	}
	return nil
}

// syncFolder brings the names in a folder to the disk.
func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// bootID names the time since the kernel started (random(4)).
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("find out which boot this is: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// readJournal reads the records of a journal. What follows its last line end was being
// written when the writer died: that change was never made.
func readJournal(r io.Reader) (header, []Change, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxJournal+1))
	if err != nil {
		return header{}, nil, err
	}
	if len(content) > maxJournal {
		return header{}, nil, fmt.Errorf("it has more than %d bytes", maxJournal)
	}
	content = content[:bytes.LastIndexByte(content, '\n')+1]
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, maxJournal)
	if !lines.Scan() {
		return header{}, nil, nil // died before anything was written down
	}
	var h header
	if err := strict(lines.Bytes(), &h); err != nil {
		return header{}, nil, fmt.Errorf("line 1: %w", err)
	}
	if h.Format != journalFormat {
		return header{}, nil, fmt.Errorf("it has format %d, and this tcplab reads %d", h.Format, journalFormat)
	}
	var changes []Change
	for number := 2; lines.Scan(); number++ {
		var c Change
		if err := strict(lines.Bytes(), &c); err != nil {
			return header{}, nil, fmt.Errorf("line %d: %w", number, err)
		}
		changes = append(changes, c)
	}
	return h, changes, lines.Err()
}

func strict(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is more than one record in the line")
	}
	return nil
}
