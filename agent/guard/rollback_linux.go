package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// RollbackOptions say what a rollback does with what it finds.
type RollbackOptions struct {
	// Dir is the folder of the journals. One that does not exist has none.
	Dir string
	// Namespace is the inode of the network namespace in which Undo acts. Journals
	// about another one are reported and left.
	Namespace uint64
	// Undo undoes changes, the last first, those of several journals together. A
	// change that was not made, or is undone already, is no error; nor is one in whose
	// place there is now another's, which it leaves.
	Undo func([]Change) error
	// Process is whose journals are waited for, as long as ctx lasts: a process that has just died
	// lets go of its files one after another. 0: nobody's.
	Process int
	// Log takes what was found; nil: nothing.
	Log *slog.Logger
}

// leftover is a journal that its writer has left, locked.
type leftover struct {
	path    string
	file    *os.File
	header  header
	changes []Change
}

// Rollback undoes what the journals of dead processes say, and removes the journals. Those of
// living processes it leaves alone. A journal of before the machine was started anew is
// void and only removed: the kernel that it is about is gone.
func Rollback(ctx context.Context, o RollbackOptions) (err error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	found, err := leftovers(ctx, o, log)
	defer func() {
		for _, l := range found {
			l.file.Close()
		}
	}()
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	var changes []Change
	var undone []leftover
	for _, l := range found {
		switch {
		case l.header.Boot != "" && l.header.Boot != boot:
			log.Info("the machine was started anew: a journal is void", "journal", l.path, "about", l.header.About)
		case len(l.changes) > 0 && l.header.Namespace != o.Namespace:
			log.Warn("a journal is about another network namespace: start the agent there, or remove the journal if the namespace is gone",
				"journal", l.path, "about", l.header.About)
			continue
		default:
			changes = append(changes, l.changes...)
			log.Info("undoing what an agent that has died left", "journal", l.path, "about", l.header.About, "changes", len(l.changes))
		}
		undone = append(undone, l)
	}
	slices.Reverse(changes)
	if len(changes) > 0 {
		if err := o.Undo(changes); err != nil {
			return fmt.Errorf("undo what an agent that has died left (%s): %w", o.Dir, err)
		}
	}
	for _, l := range undone {
		err = errors.Join(err, os.Remove(l.path))
	}
	if len(undone) > 0 {
		err = errors.Join(err, syncFolder(o.Dir))
	}
	return err
}

// retry is how long Rollback waits before it asks again for the lock of a journal whose
// writer is dying.
const retry = 5 * time.Millisecond

// leftovers locks and reads all journals that nobody holds.
func leftovers(ctx context.Context, o RollbackOptions, log *slog.Logger) ([]leftover, error) {
	paths, err := filepath.Glob(filepath.Join(o.Dir, "*"+journalSuffix))
	if err != nil {
		return nil, fmt.Errorf("look for journals: %w", err)
	}
	var found []leftover
	for _, path := range paths {
		l, err := take(ctx, path, o.Process)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist):
			continue // its writer lives, or has just ended well
		case err != nil && l.file != nil:
			// Nothing in it can be trusted, and nothing is done by guess.
			log.Error("a journal cannot be read and is left: look at it, undo what it says, and remove it", "journal", path, "error", err)
			l.file.Close()
			continue
		case err != nil:
			return found, fmt.Errorf("read journal %s: %w", path, err)
		}
		found = append(found, l)
	}
	return found, nil
}

// take locks a journal and reads it.
func take(ctx context.Context, path string, dying int) (leftover, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return leftover{}, err
	}
	l := leftover{path: path, file: file}
	again := time.NewTicker(retry)
	defer again.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || dying == 0 || !writtenBy(path, dying) {
			file.Close()
			return leftover{}, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			file.Close()
			return leftover{}, err
		}
	}
	// Who held it may have removed it before he let go.
	if same, err := stillThere(file, path); err != nil || !same {
		file.Close()
		return leftover{}, errors.Join(err, fs.ErrNotExist)
	}
	l.header, l.changes, err = readJournal(file)
	return l, err
}

// writtenBy reports whether a journal, which another holds, is the process's.
func writtenBy(path string, process int) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	h, _, err := readJournal(file)
	return err == nil && h.Process == process
}

func stillThere(file *os.File, path string) (bool, error) {
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	here, err := file.Stat()
	return err == nil && os.SameFile(here, there), err
}
