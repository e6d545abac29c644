package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each way of damage is told, or passed over, and none is read as a segment.
func TestDamage(t *testing.T) {
	const ip, tcp = 14, 34
	for name, test := range map[string]struct {
		line string
		edit func([]byte) []byte
		want error
	}{
		"nothing":                     {line: "0 < PA 0+100", edit: func(b []byte) []byte { return b }},
		"a bit of the data":           {line: "0 < PA 0+100 damaged", want: ErrDamaged},
		"a bit of the data over IPv6": {line: "0 < PA 0+100 damaged v6", want: ErrDamaged},
		"a bit that was cut off":      {line: "0 < PA 0+100 damaged raw=80"},
		"of what went out none knows": {line: "0 > PA 0+100 damaged"},
		"a checksum that nobody has completed": {line: "0 < PA 0+100", edit: func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[tcp+16:], folded(sum(6+uint32(len(b)-tcp), b[ip+12:tcp])))
			b[len(b)-1]++
			return b
		}},
		"the IP header's checksum":     {line: "0 < PA 0+100", edit: func(b []byte) []byte { b[ip+8]--; return b }, want: ErrDamaged},
		"the IP version":               {line: "0 < PA 0+100", edit: func(b []byte) []byte { b[ip] = 0x65; return b }, want: ErrDamaged},
		"the IP header's length":       {line: "0 < PA 0+100", edit: func(b []byte) []byte { b[ip] = 0x41; return b }, want: ErrDamaged},
		"longer than its frame":        {line: "0 < PA 0+100", edit: func(b []byte) []byte { return resum(b, 2, 0xff) }, want: ErrDamaged},
		"shorter than a TCP header":    {line: "0 < PA 0+100", edit: func(b []byte) []byte { return resum(resum(b, 2, 0), 3, 30) }, want: ErrDamaged},
		"the TCP header's length":      {line: "0 < PA 0+100", edit: func(b []byte) []byte { b[tcp+12] = 0x10; return b }, want: ErrDamaged},
		"a TCP header beyond the end":  {line: "0 < A 0+0", edit: func(b []byte) []byte { b[tcp+12] = 0xf0; return b }, want: ErrDamaged},
		"another protocol":             {line: "0 < A 0+0", edit: func(b []byte) []byte { return resum(b, 9, 17) }, want: ErrNotTCP},
		"a fragment":                   {line: "0 < A 0+0", edit: func(b []byte) []byte { return resum(b, 7, 1) }, want: ErrNotTCP},
		"another network protocol":     {line: "0 < A 0+0", edit: func(b []byte) []byte { b[12] = 9; return b }, want: ErrNotTCP},
		"nothing but an Ethernet head": {line: "0 < A 0+0", edit: func(b []byte) []byte { return b[:14] }, want: ErrNotTCP},
		"half a TCP header":            {line: "0 < PA 0+100 raw=45", want: ErrNotTCP},
		"half of its options":          {line: "0 < SA raw=60"},
	} {
		t.Run(name, func(t *testing.T) {
			k := talker{t: t}
			line := test.line
			if cut, v6 := bytes.CutSuffix([]byte(line), []byte(" v6")); v6 {
				k.v6, line = true, string(cut)
			}
			p := k.packet(line)
			if test.edit != nil {
				p.Data = test.edit(p.Data)
			}
			if _, err := Decode(p); !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("Decode: %v, want %v", err, test.want)
			}
		})
	}
}

// resum sets a byte of the IPv4 header and its checksum anew.
func resum(b []byte, at int, value byte) []byte {
	header := b[14:34]
	header[at] = value
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^folded(sum(0, header)))
	return b
}

func TestDecode(t *testing.T) {
	k := talker{t: t}
	_ = k.packet("0 > S") // draws the sequence numbers
	got, err := Decode(k.packet("12.5 > PAE 100+40 ack=50 win=77 id=9 sack=60-70 ts=258"))
	if err != nil {
		t.Fatal(err)
	}
	want := Segment{
		Time: at(12.5), Way: Out, From: clientEnd, To: serverEnd, ID: 9, Seq: 4294967101, Ack: 1051,
		Flags: PSH | ACK | ECE, Window: 77, Payload: 40,
		Options: Options{Scale: -1, SACK: []Range{{1061, 1071}}, Timestamps: true, Value: 258},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Segment) bool { return a.From == b.From && a.To == b.To && same(a, b) })); diff != "" {
		t.Error(diff)
	}
}

// same compares all but the addresses.
func same(a, b Segment) bool {
	return a.Time.Equal(b.Time) && a.Way == b.Way && a.ID == b.ID && a.Seq == b.Seq && a.Ack == b.Ack && a.Flags == b.Flags &&
		a.Window == b.Window && a.Payload == b.Payload && cmp.Equal(a.Options, b.Options)
}

// A file gives back what was written, with its nanoseconds.
func TestFile(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file)
	for i, name := range []string{"eth0", "eth1"} {
		if id, err := w.Add(Interface{Name: name, Description: "node " + name, Snap: 60}, "tcp"); err != nil || id != i {
			t.Fatalf("Add: %d, %v", id, err)
		}
	}
	k := talker{t: t}
	want := k.packets("0.000001 > S raw=60\n20.123456 < SA raw=60 iface=1\n21 > A 0+0")
	size := file.Len()
	for _, p := range want {
		if err := w.Packet(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if size == 0 { // the interfaces came with it
			size = file.Len()
			continue
		}
		if grown := file.Len() - size; grown != PacketBytes(len(p.Data)) {
			t.Errorf("a packet of %d bytes took %d, announced were %d", len(p.Data), grown, PacketBytes(len(p.Data)))
		}
		size = file.Len()
	}
	if err := w.Count(1, at(30), 7, 2); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(file.Bytes())
	var got []Packet
	keep := func(p Packet) error {
		p.Data = bytes.Clone(p.Data)
		got = append(got, p)
		return nil
	}
	info, err := Each(bytes.NewReader(whole), keep)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Interface{{"eth0", "node eth0", 60}, {"eth1", "node eth1", 60}}, info.Interfaces); diff != "" || info.Truncated {
		t.Errorf("interfaces, truncated %v:\n%s", info.Truncated, diff)
	}
	got = nil
	if info, err := Each(bytes.NewReader(whole[:size-10]), keep); err != nil || !info.Truncated || len(got) != 2 {
		t.Errorf("a file that ends early: %d packets, truncated %v, %v", len(got), info.Truncated, err)
	}
	stop := errors.New("stop")
	if _, err := Each(bytes.NewReader(whole), func(Packet) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the function: %v", err)
	}
	if _, err := Each(bytes.NewReader([]byte("no capture at all, this one")), keep); err == nil {
		t.Error("what is no capture is read")
	}
}

// No frame, and no row of frames, makes the reading fail or count what is not there.
func FuzzReading(f *testing.F) {
	k := talker{t: f}
	for _, p := range k.packets(opening + "20 > PA 0+100\n40 < A ack=100 sack=200-300\n50 > FA 100+0\n60 < RA\n70 > SEW isn=5") {
		f.Add(p.Data, p.Data[:54], uint8(p.Way), uint16(p.Length))
	}
	k.v6 = true
	for _, p := range k.packets(opening + "20 > PA 0+100") {
		f.Add(p.Data, p.Data[:60], uint8(p.Way), uint16(p.Length))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, way uint8, length uint16) {
		var r Reading
		packets := 0
		for i, data := range [][]byte{a, b, a, b, b, a} {
			p := Packet{Time: at(float64(i)), Way: Way(way % 3), Length: max(int(length), len(data)), Data: data}
			r.Add(p)
			packets++
		}
		segments, bytes := uint64(0), uint64(0)
		for _, c := range r.Connections {
			for _, e := range []End{c.FromClient, c.FromServer} {
				segments += e.Segments
				bytes += e.Bytes
				if e.DataSegments > e.Segments || e.Retransmissions > e.DataSegments || e.FastRetransmissions+e.TimeoutRetransmissions > e.Retransmissions || e.BytesRetransmitted > e.Bytes {
					t.Errorf("counts that contradict one another: %+v", e)
				}
			}
		}
		if r.Packets != uint64(packets) || segments+r.Damaged+r.Others > r.Packets || bytes > r.Packets*0xffff {
			t.Errorf("of %d packets %d are segments, %d damaged, %d others", packets, segments, r.Damaged, r.Others)
		}
		Summary("", r.Connections)
	})
}

func FuzzFile(f *testing.F) {
	var file bytes.Buffer
	w := NewWriter(&file)
	if _, err := w.Add(Interface{Name: "eth0", Snap: 128}, ""); err != nil {
		f.Fatal(err)
	}
	k := talker{t: f}
	for _, p := range k.packets(opening) {
		if err := w.Packet(p); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(w.Count(0, at(1), 3, 0), w.Flush()); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, content []byte) {
		var r Reading
		info, err := Each(io.LimitReader(bytes.NewReader(content), 1<<20), func(p Packet) error {
			if len(p.Data) > p.Length || p.Interface < 0 {
				t.Errorf("a packet of %d bytes of which %d were kept", p.Length, len(p.Data))
			}
			r.Add(p)
			return nil
		})
		if err == nil && len(content) > 0 && r.Packets > 0 && len(info.Interfaces) == 0 {
			t.Error("packets of no interface")
		}
	})
}
