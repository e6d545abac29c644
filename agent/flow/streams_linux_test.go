package flow

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestBulkOfSeveralStreams(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	const streams, size = 8, 1_000_003
	spec := bulkBytes(size)
	spec.GetBulk().Streams = streams
	r := run(t, spec, cfg)
	if r.GetBytes() != size || r.GetClient().GetBytesWritten() != size || r.GetServer().GetBytesRead() != size {
		t.Errorf("%v", r)
	}
	if len(r.GetStreams()) != streams || r.GetConnect().GetCount() != streams || r.GetLatency().GetCount() != streams {
		t.Fatalf("%d streams, %d connections, %d latencies", len(r.GetStreams()), r.GetConnect().GetCount(), r.GetLatency().GetCount())
	}
	var sum, samples uint64
	var addresses []string
	for i, s := range r.GetStreams() {
		want := uint64(size / streams)
		if i < size%streams {
			want++
		}
		if s.GetBytes() != want || s.GetClient().GetTcpInfo().GetBytesAcked() < want || s.GetGoodputBps() <= 0 || s.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
			t.Errorf("stream %d: %v", i, s)
		}
		sum += s.GetBytes()
		samples += s.GetSamplesCount()
		addresses = append(addresses, s.GetClient().GetAddress()+s.GetServer().GetAddress())
	}
	slices.Sort(addresses)
	if sum != size || samples != r.GetSamplesCount() || len(slices.Compact(addresses)) != streams {
		t.Errorf("%d bytes and %d samples of the streams, %d of the flow, addresses %v", sum, samples, r.GetSamplesCount(), addresses)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

func TestBulkBothWays(t *testing.T) {
	const size = 20_000_000
	for name, change := range map[string]func(*tcplabv1.Flow){
		"by bytes":         func(*tcplabv1.Flow) {},
		"several streams":  func(f *tcplabv1.Flow) { f.GetBulk().Streams = 3 },
		"by bytes at most": func(f *tcplabv1.Flow) { f.Duration = durationpb.New(time.Hour) },
		"for a time": func(f *tcplabv1.Flow) {
			f.GetBulk().Amount = &tcplabv1.Bulk_Duration{Duration: durationpb.New(100 * time.Millisecond)}
		},
		"without copies": func(f *tcplabv1.Flow) { f.GetBulk().Zerocopy = true },
		// The servers have written all long before it is sent.
		"paced": func(f *tcplabv1.Flow) {
			f.GetBulk().Amount, f.GetBulk().Streams, f.GetBulk().PacingBps = &tcplabv1.Bulk_Bytes{Bytes: 800_000}, 8, 8_000_000
		},
		"at a rate": func(f *tcplabv1.Flow) {
			f.GetBulk().Amount, f.GetBulk().RateBps = &tcplabv1.Bulk_Bytes{Bytes: size / 10}, 8*size
		},
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t, true)
			spec := bulkBytes(size)
			spec.GetBulk().Both = true
			change(spec)
			r := run(t, spec, cfg)
			c, s := r.GetClient(), r.GetServer()
			if c.GetBytesWritten() != s.GetBytesRead() || s.GetBytesWritten() != c.GetBytesRead() || r.GetBytes() != s.GetBytesRead() {
				t.Errorf("the client wrote %d and read %d, the server wrote %d and read %d", c.GetBytesWritten(), c.GetBytesRead(), s.GetBytesWritten(), s.GetBytesRead())
			}
			if n := spec.GetBulk().GetBytes(); n > 0 && (c.GetBytesRead() != n || s.GetBytesRead() != n) || c.GetBytesRead() == 0 || s.GetBytesRead() == 0 {
				t.Errorf("%d bytes forward, %d backward", s.GetBytesRead(), c.GetBytesRead())
			}
			for _, one := range append(r.GetStreams(), r)[:max(1, len(r.GetStreams()))] {
				for _, end := range []*tcplabv1.FlowEnd{one.GetClient(), one.GetServer()} {
					info := end.GetTcpInfo()
					if info.GetBytesAcked() < end.GetBytesWritten() || info.GetBytesSent()-info.GetBytesRetrans() != end.GetBytesWritten() {
						t.Errorf("%s wrote %d bytes, and its TCP_INFO is from before they were sent and acknowledged: %v", end.GetNode(), end.GetBytesWritten(), info)
					}
				}
			}
			if r.GetGoodputBps() <= 0 || r.GetBulk().GetBackwardBps() <= 0 {
				t.Errorf("%g bit/s forward, %g backward", r.GetGoodputBps(), r.GetBulk().GetBackwardBps())
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

// What an application writes at a rate comes at that rate, and its writes are as long as asked.
func TestBulkAtARate(t *testing.T) {
	flowtest.Leakless(t)
	const size, write = 1_000_000, 10_000
	spec := bulkBytes(size)
	spec.GetBulk().RateBps, spec.GetBulk().Write = 8*size, write // 1 s
	spec.GetBulk().RateSchedule = []*tcplabv1.RateStep{
		{At: durationpb.New(100 * time.Millisecond), Rate: 0},
		{At: durationpb.New(200 * time.Millisecond), Rate: 8 * 4 * size},
	}
	r := run(t, spec, nodes(t, false))
	// 0.1 s at the rate, a pause, and all but the last of 90 writes at four times the rate.
	const want = 200*time.Millisecond + 890*time.Millisecond/4
	if took := r.GetLatency().GetMax().AsDuration(); took < want || r.GetBytes() != size {
		t.Errorf("%d bytes in %s, want %s", r.GetBytes(), took, want)
	}
	// None of the writes is a multiple of a segment, and none waits for the next.
	if segments := r.GetClient().GetTcpInfo().GetDataSegsOut(); segments < size/write*7 {
		t.Errorf("%d segments of %d writes", segments, size/write)
	}
}

// TCP paces itself where nothing else does: the kernel's own report of the rate is never above what was asked.
func TestBulkThatIsPaced(t *testing.T) {
	flowtest.Leakless(t)
	const rate = 40e6
	spec := bulkBytes(1_000_000)
	spec.GetBulk().PacingBps = rate
	r := run(t, spec, nodes(t, false))
	if got := r.GetClient().GetTcpInfo().GetPacingRateBps(); got <= 0 || got > rate {
		t.Errorf("paced at %g bit/s", got)
	}
	// The first ten segments and the quantum after an idle time are not held up.
	if least := time.Duration(0.8e9 * 8e6 / rate); r.GetLatency().GetMax().AsDuration() < least {
		t.Errorf("1 MB at %g bit/s took %s", float64(rate), r.GetLatency().GetMax().AsDuration())
	}
}

// What the kernel has taken of a bulk that ends early is sent all the same, however long that takes.
func TestBulkThatIsSteadyAndSlow(t *testing.T) {
	flowtest.Leakless(t)
	spec := bulkBytes(0)
	spec.GetBulk().Amount = &tcplabv1.Bulk_Duration{Duration: durationpb.New(time.Minute)}
	spec.GetBulk().PacingBps = 8_000_000
	spec.GetBulk().Steady = &tcplabv1.Steady{Window: durationpb.New(10 * time.Millisecond), Within: 0.9, Windows: 2}
	// Some 0.5 s of it, and an orderly end is to take a tenth of that.
	spec.Socket = &tcplabv1.SocketOptions{SendBuffer: 512 << 10, Linger: durationpb.New(50 * time.Millisecond)}
	cfg := nodes(t, false)
	r := run(t, spec, cfg)
	if c := r.GetClient(); !r.GetBulk().GetSteady() || c.GetBytesWritten() != r.GetServer().GetBytesRead() || c.GetTcpInfo().GetBytesAcked() < c.GetBytesWritten() {
		t.Errorf("%v", r)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

func TestBulkThatIsSteady(t *testing.T) {
	flowtest.Leakless(t)
	spec := bulkFor(time.Hour)
	spec.GetBulk().Streams = 2
	spec.GetBulk().RateBps, spec.GetBulk().Write = 80e6, 1000
	spec.GetBulk().Steady = &tcplabv1.Steady{Window: durationpb.New(50 * time.Millisecond), Within: 0.03, Windows: 6}
	r := run(t, spec, nodes(t, false))
	b := r.GetBulk()
	if !b.GetSteady() || b.GetSteadyVariation() > 0.03 || b.GetSteadyAt().AsDuration() < 300*time.Millisecond || math.Abs(b.GetSteadyBps()-80e6) > 8e6 {
		t.Errorf("%v", b)
	}
	if r.GetClient().GetBytesWritten() != r.GetServer().GetBytesRead() || r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
		t.Errorf("%v", r)
	}
	never := bulkFor(100 * time.Millisecond)
	never.GetBulk().Steady = &tcplabv1.Steady{Window: durationpb.New(time.Hour), Within: 0.1}
	if r := run(t, never, nodes(t, false)); r.GetBulk().GetSteady() || r.GetBulk().GetSteadyAt() != nil {
		t.Errorf("what had no time to be steady: %v", r.GetBulk())
	}
}

// The kernel sends from the sender's memory as far as the veth; there the other node's stack must not hold
// it, and copies: every write is completed, and reported as copied.
func TestBulkWithoutCopies(t *testing.T) {
	flowtest.Leakless(t)
	for _, spec := range []*tcplabv1.Flow{bulkBytes(10_000_001), bulkFor(50 * time.Millisecond)} {
		spec.GetBulk().Zerocopy = true
		cfg := nodes(t, true)
		r := run(t, spec, cfg)
		b := r.GetBulk()
		if writes := (r.GetClient().GetBytesWritten() + sendSize - 1) / sendSize; b.GetZerocopySends() < writes || b.GetZerocopyCopied() != b.GetZerocopySends() {
			t.Errorf("%d writes at least, %d completed, %d copied", writes, b.GetZerocopySends(), b.GetZerocopyCopied())
		}
		if w, n := r.GetClient().GetBytesWritten(), r.GetServer().GetBytesRead(); w != n || n == 0 {
			t.Errorf("the client wrote %d bytes, the server read %d", w, n)
		}
		flowtest.NoSockets(t, cfg.Client, cfg.Server)
	}
}

func TestBulkThatMakesNoSense(t *testing.T) {
	cfg := nodes(t, false)
	for name, change := range map[string]func(*tcplabv1.Bulk){
		"less than a byte each": func(b *tcplabv1.Bulk) { b.Streams = 101 },
		"a rate that ends":      func(b *tcplabv1.Bulk) { b.RateBps, b.RateSchedule = 1e6, []*tcplabv1.RateStep{{Rate: 0}} },
		"a long write":          func(b *tcplabv1.Bulk) { b.RateBps, b.Write = 1e6, maxWrite+1 },
		"two goodputs":          func(b *tcplabv1.Bulk) { b.Both, b.Steady = true, &tcplabv1.Steady{} },
	} {
		spec := bulkBytes(100)
		change(spec.GetBulk())
		if _, err := New(spec, cfg); err == nil || !strings.HasPrefix(err.Error(), "flow b: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVariation(t *testing.T) {
	for _, test := range []struct {
		values          []float64
		mean, variation float64
	}{
		{[]float64{5, 5, 5}, 5, 0},
		{[]float64{9, 11}, 10, math.Sqrt2 / 10},
		{[]float64{0, 0}, 0, math.Inf(1)},
	} {
		mean, variation := meanAndVariation(test.values)
		if math.Abs(mean-test.mean) > 1e-9 || !(variation == test.variation || math.Abs(variation-test.variation) < 1e-9) {
			t.Errorf("%v: mean %g, variation %g", test.values, mean, variation)
		}
	}
}
