package observe

import (
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Info is the kernel's account of one end of a connection, struct tcp_info of
// include/uapi/linux/tcp.h, in plain units: nanoseconds, bytes, segments, bit/s. A
// field that the kernel does not report is 0. The tags name its columns in
// Parquet; what each field means stands at TcpInfo in the contract.
type Info struct {
	State           uint32        `parquet:"state"`
	CAState         uint32        `parquet:"ca_state"`
	Options         uint32        `parquet:"options"`
	RTO             time.Duration `parquet:"rto_ns"`
	ATO             time.Duration `parquet:"ato_ns"`
	SndMSS          uint32        `parquet:"snd_mss"`
	RcvMSS          uint32        `parquet:"rcv_mss"`
	RTT             time.Duration `parquet:"rtt_ns"`
	RTTVar          time.Duration `parquet:"rttvar_ns"`
	MinRTT          time.Duration `parquet:"min_rtt_ns"`
	SndCwnd         uint32        `parquet:"snd_cwnd"`
	SndSsthresh     uint32        `parquet:"snd_ssthresh"`
	TotalRetrans    uint32        `parquet:"total_retrans"`
	Lost            uint32        `parquet:"lost"`
	Reordering      uint32        `parquet:"reordering"`
	BytesAcked      uint64        `parquet:"bytes_acked"`    // counts the client's SYN and each FIN as a byte
	BytesReceived   uint64        `parquet:"bytes_received"` // counts the peer's FIN as a byte
	BytesSent       uint64        `parquet:"bytes_sent"`
	BytesRetrans    uint64        `parquet:"bytes_retrans"`
	SegsOut         uint32        `parquet:"segs_out"`
	SegsIn          uint32        `parquet:"segs_in"`
	DataSegsOut     uint32        `parquet:"data_segs_out"`
	DataSegsIn      uint32        `parquet:"data_segs_in"`
	DeliveryRateBps float64       `parquet:"delivery_rate_bps"`
	PacingRateBps   float64       `parquet:"pacing_rate_bps"`
	BusyTime        time.Duration `parquet:"busy_time_ns"`
	RwndLimited     time.Duration `parquet:"rwnd_limited_ns"`
	SndbufLimited   time.Duration `parquet:"sndbuf_limited_ns"`
	DSACKDups       uint32        `parquet:"dsack_dups"`
	RcvOOOPack      uint32        `parquet:"rcv_ooopack"`
	SndWnd          uint32        `parquet:"snd_wnd"`
}

// DecodeInfo reads struct tcp_info as the kernel returned it. Kernels append
// fields, so the length says which are there; a field that is not wholly there
// is 0, and what comes after the fields known here is left alone. It takes any
// bytes.
func DecodeInfo(raw []byte) Info {
	r := layout(raw)
	return Info{
		State:           r.u8(0),
		CAState:         r.u8(1),
		Options:         r.u8(5),
		RTO:             r.micros32(8),
		ATO:             r.micros32(12),
		SndMSS:          r.u32(16),
		RcvMSS:          r.u32(20),
		Lost:            r.u32(32),
		RTT:             r.micros32(68),
		RTTVar:          r.micros32(72),
		SndSsthresh:     r.u32(76),
		SndCwnd:         r.u32(80),
		Reordering:      r.u32(88),
		TotalRetrans:    r.u32(100),
		PacingRateBps:   r.rate(104),
		BytesAcked:      r.u64(120),
		BytesReceived:   r.u64(128),
		SegsOut:         r.u32(136),
		SegsIn:          r.u32(140),
		MinRTT:          r.micros32(148),
		DataSegsIn:      r.u32(152),
		DataSegsOut:     r.u32(156),
		DeliveryRateBps: r.rate(160),
		BusyTime:        r.micros64(168),
		RwndLimited:     r.micros64(176),
		SndbufLimited:   r.micros64(184),
		BytesSent:       r.u64(200),
		BytesRetrans:    r.u64(208),
		DSACKDups:       r.u32(216),
		RcvOOOPack:      r.u32(224),
		SndWnd:          r.u32(228),
	}
}

// layout is a struct in the machine's byte order, read by offset.
type layout []byte

func (l layout) u8(offset int) uint32 {
	if len(l) < offset+1 {
		return 0
	}
	return uint32(l[offset])
}

func (l layout) u16(offset int) uint32 {
	if len(l) < offset+2 {
		return 0
	}
	return uint32(binary.NativeEndian.Uint16(l[offset:]))
}

func (l layout) u32(offset int) uint32 {
	if len(l) < offset+4 {
		return 0
	}
	return binary.NativeEndian.Uint32(l[offset:])
}

func (l layout) u64(offset int) uint64 {
	if len(l) < offset+8 {
		return 0
	}
	return binary.NativeEndian.Uint64(l[offset:])
}

// micros32 is a time in µs; all ones is the kernel's word for "none yet"
// (minmax_get of tcp_min_rtt starts at ~0U).
func (l layout) micros32(offset int) time.Duration {
	v := l.u32(offset)
	if v == math.MaxUint32 {
		return 0
	}
	return time.Duration(v) * time.Microsecond
}

func (l layout) micros64(offset int) time.Duration {
	v := l.u64(offset)
	if v > math.MaxInt64/uint64(time.Microsecond) {
		return 0
	}
	return time.Duration(v) * time.Microsecond
}

// rate is in bytes/s in the struct; all ones is "no limit" (sk_pacing_rate), which is not a rate.
func (l layout) rate(offset int) float64 {
	v := l.u64(offset)
	if v == math.MaxUint64 {
		return 0
	}
	return float64(v) * 8
}

// Proto is the account as the contract sends it.
func (i Info) Proto() *tcplabv1.TcpInfo {
	return &tcplabv1.TcpInfo{
		State:           i.State,
		CaState:         i.CAState,
		Options:         i.Options,
		Rto:             duration(i.RTO),
		Ato:             duration(i.ATO),
		SndMss:          i.SndMSS,
		RcvMss:          i.RcvMSS,
		Rtt:             duration(i.RTT),
		Rttvar:          duration(i.RTTVar),
		MinRtt:          duration(i.MinRTT),
		SndCwnd:         i.SndCwnd,
		SndSsthresh:     i.SndSsthresh,
		TotalRetrans:    i.TotalRetrans,
		Lost:            i.Lost,
		Reordering:      i.Reordering,
		BytesAcked:      i.BytesAcked,
		BytesReceived:   i.BytesReceived,
		BytesSent:       i.BytesSent,
		BytesRetrans:    i.BytesRetrans,
		SegsOut:         i.SegsOut,
		SegsIn:          i.SegsIn,
		DataSegsOut:     i.DataSegsOut,
		DataSegsIn:      i.DataSegsIn,
		DeliveryRateBps: i.DeliveryRateBps,
		PacingRateBps:   i.PacingRateBps,
		BusyTime:        duration(i.BusyTime),
		RwndLimited:     duration(i.RwndLimited),
		SndbufLimited:   duration(i.SndbufLimited),
		DsackDups:       i.DSACKDups,
		RcvOoopack:      i.RcvOOOPack,
		SndWnd:          i.SndWnd,
	}
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
