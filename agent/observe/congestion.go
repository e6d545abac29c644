package observe

import (
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Congestion is what a congestion control says of itself, union tcp_cc_info of
// include/uapi/linux/inet_diag.h, in plain units. One of the three parts is
// filled in at most; all are zero for a control that says nothing. The tags name its
// columns in Parquet; what each field means stands at CongestionInfo in the contract.
type Congestion struct {
	BBRBandwidthBps  float64       `parquet:"bbr_bandwidth_bps"`
	BBRMinRTT        time.Duration `parquet:"bbr_min_rtt_ns"`
	BBRPacingGain    float64       `parquet:"bbr_pacing_gain"`
	BBRCwndGain      float64       `parquet:"bbr_cwnd_gain"`
	VegasEnabled     bool          `parquet:"vegas_enabled"`
	VegasRTTCount    uint32        `parquet:"vegas_rtt_count"`
	VegasRTT         time.Duration `parquet:"vegas_rtt_ns"`
	VegasMinRTT      time.Duration `parquet:"vegas_min_rtt_ns"`
	DCTCPEnabled     bool          `parquet:"dctcp_enabled"`
	DCTCPMarked      bool          `parquet:"dctcp_marked"`
	DCTCPAlpha       float64       `parquet:"dctcp_alpha"`
	DCTCPBytesMarked uint32        `parquet:"dctcp_bytes_marked"`
	DCTCPBytesAcked  uint32        `parquet:"dctcp_bytes_acked"`
}

// The parts of union tcp_cc_info, as sock_diag numbers them (INET_DIAG_VEGASINFO,
// INET_DIAG_DCTCPINFO, INET_DIAG_BBRINFO of include/uapi/linux/inet_diag.h).
type part int

const (
	noPart    part = 0
	vegasPart part = 3
	dctcpPart part = 9
	bbrPart   part = 16
)

// partOf is what the congestion control of that name tells. Those that count as Vegas
// does share its get_info (net/ipv4/tcp_vegas.c, tcp_vegas_get_info, and their own).
func partOf(control string) part {
	switch control {
	case "bbr":
		return bbrPart
	case "vegas", "veno", "westwood", "illinois", "yeah", "nv":
		return vegasPart
	case "dctcp", "dctcp-reno":
		return dctcpPart
	}
	return noPart
}

const (
	bbrUnit      = 1 << 8  // of gains (BBR_UNIT, net/ipv4/tcp_bbr.c)
	dctcpMaximum = 1 << 10 // of alpha (DCTCP_MAX_ALPHA, net/ipv4/tcp_dctcp.c)
)

// decodeCongestion reads one part of the union. A field that is not wholly there is 0.
// It takes any bytes.
func decodeCongestion(which part, raw []byte) (c Congestion) {
	r := layout(raw)
	switch which {
	case bbrPart:
		c.BBRBandwidthBps = float64(uint64(r.u32(4))<<32|uint64(r.u32(0))) * 8
		c.BBRMinRTT = r.micros32(8)
		c.BBRPacingGain = float64(r.u32(12)) / bbrUnit
		c.BBRCwndGain = float64(r.u32(16)) / bbrUnit
	case vegasPart:
		// Before the first measurement the least is 2^31-1 µs (tcp_vegas_init).
		c.VegasEnabled, c.VegasRTTCount, c.VegasRTT = r.u32(0) != 0, r.u32(4), r.micros32(8)
		if least := r.u32(12); least < 1<<31-1 {
			c.VegasMinRTT = r.micros32(12)
		}
	case dctcpPart:
		c.DCTCPEnabled, c.DCTCPMarked = r.u16(0) != 0, r.u16(2) != 0
		c.DCTCPAlpha = float64(r.u32(4)) / dctcpMaximum
		c.DCTCPBytesMarked, c.DCTCPBytesAcked = r.u32(8), r.u32(12)
	}
	return c
}

// Proto is the account as the contract sends it; nil where there is none.
func (c Congestion) Proto() *tcplabv1.CongestionInfo {
	if c == (Congestion{}) {
		return nil
	}
	switch {
	case c.BBRBandwidthBps != 0 || c.BBRMinRTT != 0 || c.BBRPacingGain != 0 || c.BBRCwndGain != 0:
		return &tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Bbr{Bbr: &tcplabv1.BbrInfo{
			BandwidthBps: c.BBRBandwidthBps, MinRtt: duration(c.BBRMinRTT), PacingGain: c.BBRPacingGain, CwndGain: c.BBRCwndGain,
		}}}
	case c.VegasEnabled || c.VegasRTTCount != 0 || c.VegasRTT != 0 || c.VegasMinRTT != 0:
		return &tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Vegas{Vegas: &tcplabv1.VegasInfo{
			Enabled: c.VegasEnabled, RttCount: c.VegasRTTCount, Rtt: duration(c.VegasRTT), MinRtt: duration(c.VegasMinRTT),
		}}}
	}
	return &tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Dctcp{Dctcp: &tcplabv1.DctcpInfo{
		Enabled: c.DCTCPEnabled, Marked: c.DCTCPMarked, Alpha: c.DCTCPAlpha, BytesMarked: c.DCTCPBytesMarked, BytesAcked: c.DCTCPBytesAcked,
	}}}
}
