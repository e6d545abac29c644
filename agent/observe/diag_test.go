package observe

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// diagMessage is struct inet_diag_msg of an IPv4 socket with attributes.
func diagMessage(state byte, attributes ...[]byte) []byte {
	raw := slices.Grow([]byte(nil), diagMessageSize)[:diagMessageSize]
	raw[0], raw[1] = ipv4, state
	binary.BigEndian.PutUint16(raw[4:], 80)
	binary.BigEndian.PutUint16(raw[6:], 4000)
	copy(raw[8:], []byte{10, 0, 0, 1})
	copy(raw[24:], []byte{10, 0, 0, 2})
	binary.NativeEndian.PutUint32(raw[44:], 7)
	binary.NativeEndian.PutUint32(raw[48:], 1)
	for _, a := range attributes {
		raw = append(raw, a...)
	}
	return raw
}

// attribute is one netlink attribute, padded.
func attribute(kind uint16, value ...byte) []byte {
	raw := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(raw, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(raw[2:], kind)
	raw = append(raw, value...)
	return append(raw, make([]byte, (4-len(raw)%4)%4)...)
}

func words(values ...uint32) []byte {
	var raw []byte
	for _, v := range values {
		raw = binary.NativeEndian.AppendUint32(raw, v)
	}
	return raw
}

func TestParseSocket(t *testing.T) {
	plain := Socket{Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("10.0.0.2:4000"), State: StateEstablished, Cookie: 7 + 1<<32}
	with := func(change func(*Socket)) *Socket {
		s := plain
		change(&s)
		return &s
	}
	for name, test := range map[string]struct {
		raw  []byte
		want *Socket // nil: an error
	}{
		"plain":           {diagMessage(1), &plain},
		"new SYN_RECV":    {diagMessage(12), with(func(s *Socket) { s.State = StateSynReceived })},
		"control":         {diagMessage(1, attribute(diagCong, []byte("bbr\x00")...)), with(func(s *Socket) { s.Control = "bbr" })},
		"control unended": {diagMessage(1, attribute(diagCong, 'x')), with(func(s *Socket) { s.Control = "x" })},
		"mark":            {diagMessage(1, attribute(diagMark, words(9)...)), with(func(s *Socket) { s.Mark = 9 })},
		"memory":          {diagMessage(1, attribute(diagMemory, words(1, 2, 3, 4, 5, 6, 7, 8, 9)...)), with(func(s *Socket) { s.Memory = Memory{1, 2, 3, 4, 6, 9} })},
		"info in part":    {diagMessage(1, attribute(diagInfo, 8, 1)), with(func(s *Socket) { s.Info = Info{State: 8, CAState: 1} })},
		"unknown and bbr": {diagMessage(1, attribute(99, 1, 2, 3), attribute(16, words(1000, 0, 20000, 739, 512)...)), with(func(s *Socket) {
			s.Congestion = Congestion{BBRBandwidthBps: 8000, BBRMinRTT: 20 * time.Millisecond, BBRPacingGain: 739. / 256, BBRCwndGain: 2}
		})},
		"trailing padding": {append(diagMessage(1), 0, 0), &plain},
		"nothing":          {nil, nil},
		"cut":              {diagMessage(1)[:diagMessageSize-1], nil},
		"attribute cut":    {diagMessage(1, attribute(diagCong, 'r')[:4]), nil},
		"attribute of 0":   {append(diagMessage(1), 0, 0, 0, 0), nil},
		"family":           {make([]byte, diagMessageSize), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSocket(test.raw)
			if (err != nil) != (test.want == nil) {
				t.Fatalf("error %v", err)
			}
			if err == nil {
				if diff := cmp.Diff(*test.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestDecodeCongestion(t *testing.T) {
	for name, test := range map[string]struct {
		which part
		raw   []byte
		want  Congestion
		sent  *tcplabv1.CongestionInfo
	}{
		"bbr": {
			bbrPart, words(125_000_000, 1, 5000, 256, 512),
			Congestion{BBRBandwidthBps: 8 * (125_000_000 + 1<<32), BBRMinRTT: 5 * time.Millisecond, BBRPacingGain: 1, BBRCwndGain: 2},
			&tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Bbr{Bbr: &tcplabv1.BbrInfo{BandwidthBps: 8 * (125_000_000 + 1<<32), MinRtt: duration(5 * time.Millisecond), PacingGain: 1, CwndGain: 2}}},
		},
		"vegas": {
			vegasPart, words(1, 3, 400, 300),
			Congestion{VegasEnabled: true, VegasRTTCount: 3, VegasRTT: 400 * time.Microsecond, VegasMinRTT: 300 * time.Microsecond},
			&tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Vegas{Vegas: &tcplabv1.VegasInfo{Enabled: true, RttCount: 3, Rtt: duration(400 * time.Microsecond), MinRtt: duration(300 * time.Microsecond)}}},
		},
		"vegas without any": {
			vegasPart, words(1, 0, 0, 1<<31-1),
			Congestion{VegasEnabled: true},
			&tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Vegas{Vegas: &tcplabv1.VegasInfo{Enabled: true, Rtt: duration(0), MinRtt: duration(0)}}},
		},
		"dctcp": {
			dctcpPart, append([]byte{1, 0, 1, 0}, words(512, 10, 20)...),
			Congestion{DCTCPEnabled: true, DCTCPMarked: true, DCTCPAlpha: 0.5, DCTCPBytesMarked: 10, DCTCPBytesAcked: 20},
			&tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Dctcp{Dctcp: &tcplabv1.DctcpInfo{Enabled: true, Marked: true, Alpha: 0.5, BytesMarked: 10, BytesAcked: 20}}},
		},
		"cut":    {bbrPart, words(125, 0, 5000)[:11], Congestion{BBRBandwidthBps: 1000}, &tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Bbr{Bbr: &tcplabv1.BbrInfo{BandwidthBps: 1000, MinRtt: duration(0)}}}},
		"silent": {noPart, words(1, 2, 3), Congestion{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := decodeCongestion(test.which, test.raw)
			if got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
			if sent := got.Proto(); sent.String() != test.sent.String() {
				t.Errorf("sent %v, want %v", sent, test.sent)
			}
		})
	}
}

func TestStateNames(t *testing.T) {
	for state, want := range map[uint32]string{StateEstablished: "ESTABLISHED", StateTimeWait: "TIME_WAIT", StateClosing: "CLOSING", StateListen: "LISTEN", StateLastAck: "LAST_ACK"} {
		if got := stateName(state); got != want {
			t.Errorf("state %d is %s, not %s", state, got, want)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add([]byte{})
	f.Add(diagMessage(1, attribute(diagCong, []byte("cubic\x00")...), attribute(16, words(1, 2, 3, 4, 5)...)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSocket(raw)
		if err == nil && (!s.Local.IsValid() || len(raw) < diagMessageSize) {
			t.Errorf("%d bytes are %+v", len(raw), s)
		}
		s.Info.Proto()
		s.Congestion.Proto()
	})
}
