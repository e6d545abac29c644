package observe

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

// memory is files in memory.
type memory struct {
	files     []*bytes.Buffer
	closed    int
	abandoned bool
}

func (m *memory) Open(number int) (io.Writer, error) {
	if number != len(m.files)+1 || m.closed != len(m.files) {
		return nil, errors.New("opened out of turn")
	}
	m.files = append(m.files, &bytes.Buffer{})
	return m.files[number-1], nil
}

func (m *memory) Close() error { m.closed++; return nil }

func (m *memory) Abandon() error { m.abandoned = true; return nil }

// scratch is a file of the test's.
func scratch(t testing.TB) Scratch {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "scratch"))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func readRows[R any](t *testing.T, file *bytes.Buffer) []R {
	t.Helper()
	rows, err := parquet.Read[R](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestSamplesAreReadBack(t *testing.T) {
	s := NewSamples(scratch(t))
	start := time.Now()
	samples := []Sample{
		{Flow: "a", End: "client", Time: start, Info: Info{State: 1, RTT: 20 * time.Millisecond, SndCwnd: 10, SndSsthresh: 1<<31 - 1, BytesAcked: 1 << 40, DeliveryRateBps: 1.5e9}},
		{Flow: "a", End: "server", Time: start.Add(time.Millisecond), Info: Info{State: 8, RcvOOOPack: 3, SndWnd: 65535, BusyTime: time.Hour}, Congestion: Congestion{BBRCwndGain: 2.5, DCTCPMarked: true}},
		{Flow: "b", End: "client", Time: start.Add(time.Hour)},
	}
	for i := range samples {
		s.Add(&samples[i])
	}
	var files memory
	if err := s.Finish(&files); err != nil {
		t.Fatal(err)
	}
	s.Add(&samples[0]) // too late, and no harm
	if len(files.files) != 1 || files.closed != 1 || files.abandoned {
		t.Fatalf("%d files, %d closed", len(files.files), files.closed)
	}
	rows := readRows[SampleRow](t, files.files[0])
	if len(rows) != len(samples) {
		t.Fatalf("%d rows", len(rows))
	}
	for i, s := range samples {
		want := SampleRow{Flow: s.Flow, End: s.End, Time: rows[0].Time + int64(s.Time.Sub(start)), Info: s.Info, Congestion: s.Congestion}
		if diff := cmp.Diff(want, rows[i]); diff != "" {
			t.Errorf("row %d (-want +got):\n%s", i, diff)
		}
	}
	if off := time.Unix(0, rows[0].Time).Sub(start); off.Abs() > time.Minute {
		t.Errorf("the first row's time is %s off", off)
	}
}

// The columns are what readers of the file rely on: one for each field of the
// contract's TcpInfo, with the unit in the name where it is a time, and those of congestion controls.
func TestSampleColumns(t *testing.T) {
	columns := map[string]bool{}
	for _, path := range parquet.SchemaOf(SampleRow{}).Columns() {
		if len(path) != 1 {
			t.Errorf("column %v is nested", path)
		}
		columns[path[0]] = true
	}
	for _, name := range []string{"flow", "end", "time_ns"} {
		if !columns[name] {
			t.Errorf("no column %s", name)
		}
	}
	count := 3
	fields := Info{}.Proto().ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		if field.Message() != nil {
			name += "_ns"
		}
		count++
		if !columns[name] {
			t.Errorf("TcpInfo.%s has no column %s", field.Name(), name)
		}
	}
	parts := Congestion{BBRCwndGain: 1}.Proto().ProtoReflect().Descriptor().Fields()
	for i := range parts.Len() {
		part := parts.Get(i)
		for j := range part.Message().Fields().Len() {
			field := part.Message().Fields().Get(j)
			name := string(part.Name()) + "_" + string(field.Name())
			if field.Message() != nil {
				name += "_ns"
			}
			count++
			if !columns[name] {
				t.Errorf("CongestionInfo.%s.%s has no column %s", part.Name(), field.Name(), name)
			}
		}
	}
	if len(columns) != count {
		t.Errorf("%d columns for %d fields", len(columns), count)
	}
}

// Samples of many ends at once are all kept, beyond what memory holds and one file takes.
func TestSamplesFillManyFiles(t *testing.T) {
	const ends, each, most = 8, 2 * recordChunk, 10 * recordChunk
	s := NewSamples(scratch(t))
	start := time.Now()
	var running sync.WaitGroup
	for end := range ends {
		running.Go(func() {
			for i := range each {
				sample := Sample{Flow: string(rune('a' + end)), End: "client", Time: start, Info: Info{SegsIn: uint32(i)}}
				s.Add(&sample)
				for len(s.recorder.full) > recordChunks/2 {
					runtime.Gosched() // this is no test of the disk
				}
			}
		})
	}
	running.Wait()
	var files memory
	out := newChunks[SampleRow](&files)
	out.most = most
	if err := s.finish(out); err != nil {
		t.Fatal(err)
	}
	if len(files.files) != 2 || files.closed != 2 {
		t.Fatalf("%d files, %d closed", len(files.files), files.closed)
	}
	next := map[string]uint32{}
	for _, file := range files.files {
		for _, row := range readRows[SampleRow](t, file) {
			if row.SegsIn != next[row.Flow] {
				t.Fatalf("flow %s: sample %d where %d is due", row.Flow, row.SegsIn, next[row.Flow])
			}
			next[row.Flow]++
		}
	}
	for flow, n := range next {
		if n != each {
			t.Errorf("flow %s has %d samples of %d", flow, n, each)
		}
	}
}
