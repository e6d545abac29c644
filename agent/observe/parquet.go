package observe

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// Row is one sample as it is kept: the columns flow, end, time_ns, and one for
// each field of [Info].
type Row struct {
	Flow string `parquet:"flow,dict"`
	End  string `parquet:"end,dict"`
	// Time is the Unix time in nanoseconds. Within a file it never goes back:
	// it is the wall clock's time at the file's start and the monotonic clock's
	// since then.
	Time int64 `parquet:"time_ns,delta"`
	Info
}

// rowGroup bounds what is held in memory: 100,000 rows of some 220 bytes.
const rowGroup = 100_000

// Parquet writes samples as a Parquet file. It is a [Sink]; an error of the
// writer is kept and returned by Close, so that sampling goes on undisturbed.
type Parquet struct {
	begin time.Time

	mu     sync.Mutex
	writer *parquet.GenericWriter[Row]
	row    [1]Row // reused: a sample allocates nothing
	err    error
	closed bool
}

// NewParquet starts a file on w. Without Close the file has no footer and no
// reader takes it.
func NewParquet(w io.Writer) *Parquet {
	return &Parquet{
		begin: time.Now(),
		writer: parquet.NewGenericWriter[Row](w,
			parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
			parquet.MaxRowsPerRowGroup(rowGroup)),
	}
}

// Add appends a sample. After Close it does nothing.
func (p *Parquet) Add(s Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil || p.closed {
		return
	}
	p.row[0] = Row{Flow: s.Flow, End: s.End, Time: p.begin.UnixNano() + int64(s.Time.Sub(p.begin)), Info: s.Info}
	if _, err := p.writer.Write(p.row[:]); err != nil {
		p.err = fmt.Errorf("write samples: %w", err)
	}
}

// Close writes what is held and the footer. It does not close the underlying
// writer. It returns the first error there was, and again when called again.
func (p *Parquet) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.err
	}
	p.closed = true
	if err := p.writer.Close(); err != nil && p.err == nil {
		p.err = fmt.Errorf("finish samples: %w", err)
	}
	return p.err
}
