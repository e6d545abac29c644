package observe

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

func TestParquetIsReadBack(t *testing.T) {
	var file bytes.Buffer
	p := NewParquet(&file)
	start := time.Now()
	samples := []Sample{
		{"a", "client", start, Info{State: 1, RTT: 20 * time.Millisecond, SndCwnd: 10, SndSsthresh: 1<<31 - 1, BytesAcked: 1 << 40, DeliveryRateBps: 1.5e9}},
		{"a", "server", start.Add(time.Millisecond), Info{State: 8, RcvOOOPack: 3, SndWnd: 65535, BusyTime: time.Hour}},
		{"b", "client", start.Add(time.Hour), Info{}},
	}
	for _, s := range samples {
		p.Add(s)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.Add(samples[0])
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	rows, err := parquet.Read[Row](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(samples) {
		t.Fatalf("%d rows", len(rows))
	}
	for i, s := range samples {
		want := Row{Flow: s.Flow, End: s.End, Time: rows[0].Time + int64(s.Time.Sub(start)), Info: s.Info}
		if diff := cmp.Diff(want, rows[i]); diff != "" {
			t.Errorf("row %d (-want +got):\n%s", i, diff)
		}
	}
	if off := time.Unix(0, rows[0].Time).Sub(start); off.Abs() > time.Minute {
		t.Errorf("the first row's time is %s off", off)
	}
}

// The columns are what readers of the file rely on: one for each field of the
// contract's TcpInfo, with the unit in the name where it is a time.
func TestParquetColumns(t *testing.T) {
	columns := map[string]bool{}
	for _, path := range parquet.SchemaOf(Row{}).Columns() {
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
	fields := Info{}.Proto().ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		if field.Message() != nil {
			name += "_ns"
		}
		if !columns[name] {
			t.Errorf("TcpInfo.%s has no column %s", field.Name(), name)
		}
	}
	if len(columns) != fields.Len()+3 {
		t.Errorf("%d columns for %d fields", len(columns), fields.Len())
	}
}

func TestParquetTakesManyEndsAtOnce(t *testing.T) {
	var file bytes.Buffer
	p := NewParquet(&file)
	var ends sync.WaitGroup
	for range 8 {
		ends.Go(func() {
			for range 100 {
				p.Add(Sample{Flow: "f", End: "client", Time: time.Now()})
			}
		})
	}
	ends.Wait()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.Read[Row](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil || len(rows) != 800 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestParquetThatCannotBeWritten(t *testing.T) {
	p := NewParquet(full{})
	p.Add(Sample{Flow: "f"})
	for range 2 {
		if err := p.Close(); !errors.Is(err, errFull) {
			t.Errorf("error %v", err)
		}
	}
}
