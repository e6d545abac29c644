package observe

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// Files are where a series is written: one after another, each closed before the next is opened.
type Files interface {
	// Open starts the file of that number, from 1.
	Open(number int) (io.Writer, error)
	// Close ends the file that is open and makes it whole.
	Close() error
	// Abandon leaves nothing of the file that is open, if one is.
	Abandon() error
}

const (
	// fileRows bounds a file, which is stored and fetched whole: 2^18 rows, some 20 MB of samples.
	fileRows = 1 << 18
	// groupRows bounds what is held in memory while a file is written.
	groupRows = 1 << 15
)

// chunks writes rows as Parquet, to as many files as they take. Without rows there is one, which is empty.
type chunks[R any] struct {
	files  Files
	most   int // rows in a file
	opened int
	writer *parquet.GenericWriter[R] // of the file that is open; nil: none
	rows   int                       // in it
}

func newChunks[R any](files Files) *chunks[R] { return &chunks[R]{files: files, most: fileRows} }

func (c *chunks[R]) write(rows []R) error {
	for len(rows) > 0 {
		if err := c.open(); err != nil {
			return err
		}
		n := min(len(rows), c.most-c.rows)
		if _, err := c.writer.Write(rows[:n]); err != nil {
			return fmt.Errorf("write samples: %w", err)
		}
		rows, c.rows = rows[n:], c.rows+n
		if c.rows == c.most {
			if err := c.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// open sees that a file is open.
func (c *chunks[R]) open() error {
	if c.writer != nil {
		return nil
	}
	file, err := c.files.Open(c.opened + 1)
	if err != nil {
		return err
	}
	c.opened++
	c.rows = 0
	c.writer = parquet.NewGenericWriter[R](file, parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}), parquet.MaxRowsPerRowGroup(groupRows))
	return nil
}

// end finishes the file that is open. Without its footer no reader would take it.
func (c *chunks[R]) end() error {
	err := c.writer.Close()
	c.writer = nil
	if err != nil {
		return fmt.Errorf("finish samples: %w", err)
	}
	return c.files.Close()
}

// close ends the last file; after an error nothing is left of it.
func (c *chunks[R]) close(err error) error {
	if err == nil && c.opened == 0 {
		err = c.open()
	}
	if err == nil && c.writer != nil {
		err = c.end()
	}
	if err != nil {
		return errors.Join(err, c.files.Abandon())
	}
	return nil
}
