package observe

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// captured is TCP_INFO of the sending end of a bulk transfer over a veth, from
// a little-endian Linux 6.18.
const captured = `
0800000000079900e01c030000000000a80500001802000000000000000000000000000000000000
0000000004000000000000005000000000000000dc05000058fa3f005a0200004100000096000000
02010000a805000003000000000000009038000000000000a2b2b42500000000ffffffffffffffff
c1c62d000000000001000000000000001a0800004c060000000000002f0000000000000018080000
59751b1100000000401f000000000000000000000000000000000000000000001908000000000000
c0c62d0000000000000000000000000000000000000000000000000000cc9a0000fc3f0000000000
00000000000000000000000000000000000000000000000000000000000000000000000000000000`

func TestDecodeInfo(t *testing.T) {
	whole, err := hex.DecodeString(strings.Join(strings.Fields(captured), ""))
	if err != nil {
		t.Fatal(err)
	}
	all := DecodeInfo(whole)
	for name, test := range map[string]struct {
		length int
		clear  func(*Info) // fields that a struct of this length does not have
	}{
		"Linux 6.18": {280, func(*Info) {}},
		"Linux 5.4":  {232, func(*Info) {}},
		"Linux 4.19": {224, func(i *Info) { i.RcvOOOPack, i.SndWnd = 0, 0 }},
		"Linux 4.9": {192, func(i *Info) {
			i.RcvOOOPack, i.SndWnd = 0, 0
			i.BytesSent, i.BytesRetrans, i.DSACKDups = 0, 0, 0
		}},
		"Linux 3.14": {104, func(i *Info) {
			*i = Info{
				State: i.State, CAState: i.CAState, Options: i.Options, RTO: i.RTO, ATO: i.ATO, SndMSS: i.SndMSS, RcvMSS: i.RcvMSS, Lost: i.Lost,
				RTT: i.RTT, RTTVar: i.RTTVar, SndSsthresh: i.SndSsthresh, SndCwnd: i.SndCwnd, Reordering: i.Reordering, TotalRetrans: i.TotalRetrans,
			}
		}},
		"cut in a field": {103, func(i *Info) {
			*i = Info{
				State: i.State, CAState: i.CAState, Options: i.Options, RTO: i.RTO, ATO: i.ATO, SndMSS: i.SndMSS, RcvMSS: i.RcvMSS, Lost: i.Lost,
				RTT: i.RTT, RTTVar: i.RTTVar, SndSsthresh: i.SndSsthresh, SndCwnd: i.SndCwnd, Reordering: i.Reordering,
			}
		}},
		"nothing": {0, func(i *Info) { *i = Info{} }},
	} {
		t.Run(name, func(t *testing.T) {
			want := all
			test.clear(&want)
			if diff := cmp.Diff(want, DecodeInfo(whole[:test.length])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	want := Info{
		State:           8,
		Options:         7,
		RTO:             204000 * time.Microsecond,
		SndMSS:          1448,
		RcvMSS:          536,
		RTT:             602 * time.Microsecond,
		RTTVar:          65 * time.Microsecond,
		MinRTT:          47 * time.Microsecond,
		SndCwnd:         258,
		SndSsthresh:     150,
		Reordering:      3,
		BytesAcked:      3000001,
		BytesReceived:   1,
		BytesSent:       3000000,
		SegsOut:         2074,
		SegsIn:          1612,
		DataSegsOut:     2072,
		DeliveryRateBps: 2.29609748e+09,
		PacingRateBps:   5.060793616e+09,
		BusyTime:        8000 * time.Microsecond,
		SndWnd:          10144768,
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("the whole (-want +got):\n%s", diff)
	}
}

func TestNoneYetIsNotANumber(t *testing.T) {
	raw := make([]byte, 280)
	for i := range raw {
		raw[i] = 0xff
	}
	got := DecodeInfo(raw)
	if got.MinRTT != 0 || got.PacingRateBps != 0 || got.BusyTime != 0 {
		t.Errorf("%+v", got)
	}
}

func TestInfoOnTheWire(t *testing.T) {
	got := Info{State: 1, RTT: 20 * time.Millisecond, SndCwnd: 10, BytesAcked: 5, DeliveryRateBps: 8e6}.Proto()
	want := &tcplabv1.TcpInfo{State: 1, Rtt: durationpb.New(20 * time.Millisecond), SndCwnd: 10, BytesAcked: 5, DeliveryRateBps: 8e6}
	for _, field := range []**durationpb.Duration{&want.Rto, &want.Ato, &want.Rttvar, &want.MinRtt, &want.BusyTime, &want.RwndLimited, &want.SndbufLimited} {
		*field = durationpb.New(0)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzDecodeInfo(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 103))
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info := DecodeInfo(raw)
		if len(raw) < 232 && info.SndWnd != 0 {
			t.Errorf("%d bytes have a window of %d", len(raw), info.SndWnd)
		}
		if err := info.Proto().GetRtt().CheckValid(); err != nil {
			t.Error(err)
		}
		if info.BusyTime < 0 || info.PacingRateBps < 0 {
			t.Errorf("%+v", info)
		}
	})
}
