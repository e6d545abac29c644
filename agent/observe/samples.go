package observe

import (
	"sync"
	"time"
)

// Samples is a [Sink] that keeps every sample while a trial runs, and makes Parquet of them after it.
type Samples struct {
	begin    time.Time
	recorder *Recorder[sampleRecord]

	mu      sync.Mutex // guards what is below
	numbers map[source]uint32
	sources []source
}

// source is where samples come from.
type source struct{ flow, end string }

// sampleRecord is a sample as it is kept.
type sampleRecord struct {
	source uint32
	time   int64 // ns since begin
	info   Info
	Congestion
}

// NewSamples keeps samples in the scratch file, which it closes.
func NewSamples(scratch Scratch) *Samples {
	return &Samples{begin: time.Now(), recorder: NewRecorder[sampleRecord](scratch), numbers: map[source]uint32{}}
}

// Add implements [Sink].
func (s *Samples) Add(sample *Sample) {
	s.recorder.Add(&sampleRecord{
		source:     s.number(source{sample.Flow, sample.End}),
		time:       int64(sample.Time.Sub(s.begin)),
		info:       sample.Info,
		Congestion: sample.Congestion,
	})
}

func (s *Samples) number(from source) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.numbers[from]
	if !ok {
		n = uint32(len(s.sources))
		s.numbers[from] = n
		s.sources = append(s.sources, from)
	}
	return n
}

// SampleRow is one sample as it is in Parquet: the columns flow, end, time_ns, and one for
// each field of [Info] and [Congestion].
type SampleRow struct {
	Flow string `parquet:"flow,dict"`
	End  string `parquet:"end,dict"`
	// Time is the Unix time in nanoseconds. Of one end it never goes back:
	// it is the wall clock's time at the trial's start and the monotonic clock's
	// since then.
	Time int64 `parquet:"time_ns,delta"`
	Info
	Congestion
}

// Finish writes all that was kept to Parquet files. Nothing more is kept from now on. It is called once,
// unless Discard is.
func (s *Samples) Finish(files Files) error { return s.finish(newChunks[SampleRow](files)) }

func (s *Samples) finish(out *chunks[SampleRow]) error {
	rows := make([]SampleRow, 0, recordChunk)
	err := s.recorder.Finish(func(records []sampleRecord) error {
		rows = rows[:0]
		for i := range records {
			r := &records[i]
			from := s.sources[r.source]
			rows = append(rows, SampleRow{Flow: from.flow, End: from.end, Time: s.begin.UnixNano() + r.time, Info: r.info, Congestion: r.Congestion})
		}
		return out.write(rows)
	})
	return out.close(err)
}

// Discard forgets what was kept.
func (s *Samples) Discard() error { return s.recorder.Discard() }
