package netem

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

const testFrame = 1514

// asKernel is a tree as the kernel would tell of it: its options' own encoding, decoded, but for what the kernel computes.
func asKernel(t testing.TB, in tree) tree {
	t.Helper()
	payload := func(q qdisc) []byte { return q.options().Serialize()[unix.SizeofRtAttr:] }
	out := tree{jitter: in.jitter, counted: in.counted}
	if err := out.delay.decode(payload(in.delay)); err != nil {
		t.Fatal(err)
	}
	if err := out.rate.decode(payload(in.rate)); err != nil {
		t.Fatal(err)
	}
	out.rate.bucket = in.rate.ticks(in.rate.burst)
	if !in.delay.same(out.delay) || !in.rate.same(out.rate) {
		t.Fatalf("%+v came back as %+v", in, out)
	}
	var err error
	if out.queue, err = decodeLeaf(state{kind: in.queue.kind(), options: payload(in.queue)}); err != nil {
		t.Fatal(err)
	}
	switch q := out.queue.(type) {
	case redQdisc:
		asked := in.queue.(redQdisc)
		q.fifo, q.idle = asked.fifo, asked.idle
		out.queue = q
	case codelQdisc:
		q = in.queue.(codelQdisc)
		q.target, q.interval = fromCoDel(asCoDel(q.target)), fromCoDel(asCoDel(q.interval))
		out.queue = q
	case fqCoDelQdisc:
		q = in.queue.(fqCoDelQdisc)
		q.target, q.interval = fromCoDel(asCoDel(q.target)), fromCoDel(asCoDel(q.interval))
		out.queue = q
	case pieQdisc:
		q = in.queue.(pieQdisc)
		q.target = fromTicks(asTicks(q.target))
		out.queue = q
	}
	if !same(in.queue, out.queue) {
		t.Fatalf("%+v came back as %+v", in.queue, out.queue)
	}
	return out
}

// canonical is a shape as it reads back: with defaults as values and times as bytes.
func canonical(s link.Shape) link.Shape {
	if s.Queue.Time > 0 {
		s.Queue.Bytes, s.Queue.Time = s.QueueBytes(), 0
	}
	switch s.Queue.Discipline {
	case link.CoDel, link.FQCoDel:
		s.Queue.Target, s.Queue.Interval = s.Queue.TargetOrDefault(), s.Queue.IntervalOrDefault()
	case link.PIE:
		s.Queue.Target = s.Queue.TargetOrDefault()
	case link.CAKE:
		s.Queue.Interval = s.Queue.IntervalOrDefault()
	case link.RED:
		limit := float64(s.Queue.Bytes)
		if limit == 0 {
			limit = float64(s.Queue.Packets) * testFrame
		}
		if s.Queue.RED.MinBytes == 0 {
			s.Queue.RED.MinBytes = int(max(1, math.Round(limit/12)))
		}
		if s.Queue.RED.MaxBytes == 0 {
			s.Queue.RED.MaxBytes = int(math.Round(limit / 4))
		}
		if s.Queue.RED.Probability == 0 {
			s.Queue.RED.Probability = 0.02
		}
	}
	if s.Reorder.Gap == 1 {
		s.Reorder.Gap = 0
	}
	return s
}

// resolutions compares shapes within what the kernel can tell apart.
func resolutions() cmp.Options {
	near := func(off float64) cmp.Option {
		return cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= off })
	}
	field := func(name string, option cmp.Option) cmp.Option {
		return cmp.FilterPath(func(p cmp.Path) bool {
			return slices.ContainsFunc(p, func(step cmp.PathStep) bool {
				f, ok := step.(cmp.StructField)
				return ok && f.Name() == name
			})
		}, option)
	}
	µs := cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= time.Microsecond })
	return cmp.Options{
		field("Rate", cmp.Comparer(func(a, b uint64) bool { return max(a, b)-min(a, b) <= 4 })), // whole bytes
		field("Target", µs), field("Interval", µs),
		// The density of correlated draws is at most a few, so that 2⁻³² of the threshold is a few 2⁻³² of the share.
		near(8. / (1 << 32)),
	}
}

// burstOff is by how many bytes a burst may read back otherwise.
func burstOff(s link.Shape) float64 {
	off := 1 + 2*tick.Seconds()*float64(s.Rate)/8
	if s.Overhead.ATM {
		off += 2 * 48
	}
	// tbf's multiplier has 31 bits at least.
	return off + float64(s.Burst+2*testFrame)/(1<<30)
}

// agree fails unless the kernel has what was asked.
func agree(t testing.TB, asked, read link.Shape) {
	t.Helper()
	if off := math.Abs(float64(asked.Burst - read.Burst)); off > burstOff(asked) {
		t.Errorf("burst %d, asked %d (±%.0f)", read.Burst, asked.Burst, burstOff(asked))
	}
	read.Burst = asked.Burst
	type fields link.Shape // without Equal, which cmp would use
	if diff := cmp.Diff(fields(canonical(asked)), fields(read), resolutions()); diff != "" {
		t.Errorf("(-asked +read):\n%s", diff)
	}
}

func TestShapesSurviveTheTree(t *testing.T) {
	all := map[string]link.Shape{
		"nothing":            {},
		"delay":              {Delay: 123456789 * time.Nanosecond},
		"half of all":        {Loss: link.RandomLoss(0.5)},
		"all":                {Loss: link.RandomLoss(1)},
		"down":               {Down: true, Loss: link.RandomLoss(0.1), Delay: time.Second},
		"rate in frames":     {Rate: 10e6, Queue: link.Queue{Packets: 7}},
		"rate in bytes":      {Rate: 10e6, Queue: link.Queue{Bytes: 9000}},
		"rate in time":       {Rate: 8e6, Queue: link.Queue{Time: 9 * time.Millisecond}},
		"beyond 32 bits":     {Rate: 100e9, Queue: link.Queue{Packets: 1}},
		"not in whole bytes": {Rate: 1004, Queue: link.Queue{Packets: 1}},
		"Ethernet":           {Rate: 1e9, Overhead: link.Overhead{Bytes: 24, MinBytes: 84}, Queue: link.Queue{Packets: 1}},
		"ATM":                {Rate: 1e6, Overhead: link.Overhead{Bytes: 8, ATM: true}, Queue: link.Queue{Packets: 1}},
		"burst":              {Rate: 1e9, Burst: 1 << 20, Queue: link.Queue{Packets: 1}},
		"slow burst":         {Rate: 800, Burst: 10000, Queue: link.Queue{Packets: 1}},
		"burst of cells":     {Rate: 1e6, Burst: 30000, Overhead: link.Overhead{Bytes: 8, ATM: true}, Queue: link.Queue{Packets: 1}},
		"slowest":            {Rate: 8, Queue: link.Queue{Packets: 1}},
		"fast burst":         {Rate: 100e9, Burst: 1e9, Queue: link.Queue{Packets: 1}},
		"head-drop":          {Rate: 1e6, Queue: link.Queue{Packets: 9, Discipline: link.HeadDrop}},
		"red":                {Rate: 1e6, Queue: link.Queue{Packets: 100, Discipline: link.RED, ECN: true}},
		"red, thresholds":    {Rate: 1e6, Queue: link.Queue{Bytes: 1e5, Discipline: link.RED, RED: link.REDThresholds{MinBytes: 5000, MaxBytes: 50000, Probability: 1}}},
		"codel":              {Rate: 1e6, Queue: link.Queue{Packets: 100, Discipline: link.CoDel}},
		"codel, slow":        {Rate: 1e6, Queue: link.Queue{Packets: 100, Discipline: link.CoDel, ECN: true, Target: 333 * time.Millisecond, Interval: 7 * time.Second}},
		"fq_codel":           {Rate: 1e6, Queue: link.Queue{Packets: 20000, Discipline: link.FQCoDel, ECN: true}},
		"pie":                {Rate: 1e6, Queue: link.Queue{Packets: 100, Discipline: link.PIE, Target: 12345 * time.Microsecond}},
		"cake":               {Rate: 1e6, Queue: link.Queue{Discipline: link.CAKE, Interval: 30 * time.Millisecond}},
		"correlated":         {Loss: link.Loss{Chance: link.Chance{Probability: 0.1, Correlation: 0.25}}},
		"Gilbert-Elliott":    {Loss: link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.01, ToGood: 0.3, BadLoss: 1, GoodLoss: 0.001}}},
		"four states":        {Loss: link.Loss{FourState: &link.FourState{P13: 0.5, P31: 0.25, P32: 0.75, P23: 1, P14: 0.5}}},
		"duplicate":          {Duplicate: link.Chance{Probability: 0.1, Correlation: 0.9}},
		"corrupt":            {Corrupt: link.Chance{Probability: 0.01}},
		"reorder":            {Delay: time.Millisecond, Reorder: link.Reorder{Chance: link.Chance{Probability: 0.25, Correlation: 0.5}, Gap: 5}},
		"reorder any":        {Delay: time.Millisecond, Reorder: link.Reorder{Chance: link.Chance{Probability: 1}}},
		"jitter":             {Delay: time.Second, Jitter: link.Jitter{Amount: time.Millisecond}},
		"normal jitter":      {Delay: time.Second, Jitter: link.Jitter{Amount: time.Millisecond, Distribution: link.Normal, Reorder: true}},
		"jitter by a table":  {Delay: time.Second, Jitter: link.Jitter{Amount: time.Second, Distribution: link.Table, Quantiles: []float64{-1, 0, 4}}},
	}
	for name, asked := range all {
		t.Run(name, func(t *testing.T) {
			planned, err := plan(asked, nil, 42, testFrame)
			if err != nil {
				t.Fatal(err)
			}
			got := asKernel(t, planned)
			agree(t, asked, got.shape(testFrame))
			if got.delay.seed != 42 {
				t.Errorf("seed %d, want 42", got.delay.seed)
			}
		})
	}
}

// anyShape is a valid shape, often of many parts; not always one that netem carries.
func anyShape(r *rand.Rand) link.Shape {
	maybe := func() bool { return r.IntN(3) == 0 }
	chance := func() link.Chance {
		c := link.Chance{Probability: r.Float64()}
		if maybe() {
			c.Correlation = 0.01 + 0.98*r.Float64()
		}
		return c
	}
	var s link.Shape
	if r.IntN(2) == 0 {
		s.Rate = uint64(math.Exp(r.Float64() * 26)) // to 200 Gbit/s
		if maybe() {
			s.Overhead = link.Overhead{Bytes: r.IntN(321) - 64, MinBytes: r.IntN(257), ATM: maybe()}
		}
		if maybe() {
			s.Burst = int(math.Exp(r.Float64() * 21))
		}
		disciplines := []link.Discipline{link.FIFO, link.HeadDrop, link.RED, link.CoDel, link.FQCoDel, link.CAKE, link.PIE}
		s.Queue.Discipline = disciplines[r.IntN(len(disciplines))]
		switch r.IntN(4) {
		case 0:
			s.Queue.Bytes = 1 + r.IntN(1<<31)
		case 1:
			s.Queue.Time = time.Duration(1 + r.Int64N(int64(time.Minute)))
		default:
			s.Queue.Packets = 1 + r.IntN(1<<r.IntN(31))
		}
		if s.Queue.Discipline == link.CAKE {
			s.Queue.Packets, s.Queue.Bytes, s.Queue.Time = 0, 0, 0
		}
		s.Queue.ECN = maybe()
		if maybe() {
			s.Queue.Target = time.Duration(r.Int64N(int64(time.Second)))
		}
		if maybe() {
			s.Queue.Interval = time.Duration(r.Int64N(int64(time.Minute)))
		}
		if maybe() {
			s.Queue.RED = link.REDThresholds{MinBytes: r.IntN(1 << 20), MaxBytes: r.IntN(1 << 26), Probability: r.Float64()}
		}
	}
	if r.IntN(2) == 0 {
		s.Delay = time.Duration(r.Int64N(int64(10 * time.Second)))
	}
	if maybe() {
		distributions := []link.Distribution{link.Uniform, link.Normal, link.Pareto, link.ParetoNormal, link.Table}
		s.Jitter = link.Jitter{Amount: time.Duration(r.Int64N(int64(4 * time.Second))), Distribution: distributions[r.IntN(len(distributions))], Reorder: maybe()}
		if s.Jitter.Distribution == link.Table {
			s.Jitter.Quantiles = []float64{-r.Float64(), r.Float64()}
		}
	}
	if maybe() && s.Delay > 0 {
		s.Reorder = link.Reorder{Chance: chance(), Gap: r.IntN(10)}
	}
	switch r.IntN(8) {
	case 0:
		s.Loss.Chance = chance()
	case 1:
		s.Loss.GilbertElliott = &link.GilbertElliott{ToBad: r.Float64(), ToGood: r.Float64(), BadLoss: r.Float64(), GoodLoss: r.Float64()}
	case 2:
		a, b := r.Float64(), r.Float64()
		s.Loss.FourState = &link.FourState{P13: a, P14: 1 - a, P31: b, P32: 1 - b, P23: r.Float64()}
	case 3:
		s.Loss.Every = 1 + r.Uint64N(1000)
	case 4:
		s.Loss.Packets = []uint64{1 + r.Uint64N(10), 20 + r.Uint64N(1<<40)}
	}
	if maybe() {
		s.Duplicate = chance()
	}
	if maybe() {
		s.Corrupt = chance()
	}
	s.Down = maybe()
	return s
}

// Whatever is asked either comes back as it was asked or is refused.
func FuzzShapes(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		asked := anyShape(rand.New(rand.NewPCG(seed, 0)))
		planned, err := plan(asked, nil, seed, testFrame)
		if err != nil {
			return
		}
		agree(t, asked, asKernel(t, planned).shape(testFrame))
	})
}

func TestMatchesSurviveTheFilters(t *testing.T) {
	for _, destination := range []netip.Prefix{
		{},
		netip.MustParsePrefix("10.1.2.0/23"),
		netip.MustParsePrefix("0.0.0.0/0"),
		netip.MustParsePrefix("::/0"),
		netip.MustParsePrefix("fd00:1:2::/47"),
		netip.MustParsePrefix("fd00::1/128"),
	} {
		for _, protocol := range []link.Protocol{link.AnyProtocol, link.TCP, link.UDP, link.ICMP} {
			for _, port := range []uint16{0, 1, 443} {
				asked := link.Match{Destination: destination, Protocol: protocol, Port: port}
				if protocol == link.ICMP && port != 0 || asked == (link.Match{}) {
					continue
				}
				var read []flower
				for _, f := range filters(asked, 0x10002) {
					r := f.to(position{1, 0, handlePrio}, 0)
					got, ok, err := decodeFlower(r.attrs[1].Serialize()[unix.SizeofRtAttr:])
					if err != nil || !ok || got != f {
						t.Fatalf("%+v: filter %+v came back as %+v, %v, %v", asked, f, got, ok, err)
					}
					read = append(read, got)
				}
				if got, err := matchOf(read); err != nil || got != asked {
					t.Errorf("%+v came back as %+v, %v", asked, got, err)
				}
				if got, err := matchOf(read[1:]); err == nil && got == asked {
					t.Errorf("%+v: a filter is missing, and nobody says so", asked)
				}
			}
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, shape := range map[string]link.Shape{
		"negative delay":       {Delay: -1},
		"no number":            {Loss: link.RandomLoss(math.NaN())},
		"rate of 0.875 B/s":    {Rate: 7, Queue: link.Queue{Packets: 1}},
		"rate of no limit":     {Rate: unlimited, Queue: link.Queue{Packets: 1}},
		"unresolved queue":     {Rate: 1e6},
		"endless queue":        {Rate: 1e6, Queue: link.Queue{Packets: math.MaxInt32}},
		"endless bytes":        {Rate: 1e6, Queue: link.Queue{Bytes: math.MaxInt32 - 1}},
		"negative overhead":    {Rate: 1e6, Overhead: link.Overhead{Bytes: -1}, Queue: link.Queue{Packets: 1}},
		"reorder at a rate":    {Rate: 1e6, Queue: link.Queue{Packets: 1}, Delay: 1, Reorder: link.Reorder{Chance: link.Chance{Probability: 0.1}}},
		"duplicate and loss":   {Duplicate: link.Chance{Probability: 0.1}, Loss: link.RandomLoss(0.1)},
		"duplicate and listed": {Duplicate: link.Chance{Probability: 0.1}, Loss: link.Loss{Every: 2}},
		"correlated jitter":    {Delay: 1, Jitter: link.Jitter{Amount: 1, Correlation: 0.5}},
		"much jitter":          {Delay: 1, Jitter: link.Jitter{Amount: 3 * time.Second}},
		"cake by packets":      {Rate: 1e6, Queue: link.Queue{Discipline: link.CAKE, Packets: 100}},
		"fq_codel by bytes":    {Rate: 1e6, Queue: link.Queue{Discipline: link.FQCoDel, Bytes: 1e5}},
		"codel by time":        {Rate: 1e6, Queue: link.Queue{Discipline: link.CoDel, Time: time.Second}},
		"head-drop by bytes":   {Rate: 1e6, Queue: link.Queue{Discipline: link.HeadDrop, Bytes: 1e5}},
		"pie by bytes":         {Rate: 1e6, Queue: link.Queue{Discipline: link.PIE, Bytes: 1e5}},
		"fq_codel of memory":   {Rate: 1e6, Queue: link.Queue{Discipline: link.FQCoDel, Packets: 1e7}},
		"red without room":     {Rate: 1e6, Queue: link.Queue{Discipline: link.RED, Packets: 100, RED: link.REDThresholds{MinBytes: 1e6}}},
		"burst of an hour":     {Rate: 8000, Burst: 3.6e6, Queue: link.Queue{Packets: 1}},
	} {
		if _, err := plan(shape, nil, 0, testFrame); err == nil {
			t.Errorf("%s: %+v was accepted", name, shape)
		}
	}
}

func TestDirectionsThatNetemRefuses(t *testing.T) {
	rate := func(q link.Queue) link.Shape { return link.Shape{Rate: 1e6, Queue: q} }
	step := func(shapes ...link.Shape) (s link.Schedule) {
		for i, shape := range shapes {
			s.Steps = append(s.Steps, link.Step{At: time.Duration(i+1) * time.Second, Shape: shape})
		}
		return s
	}
	path := link.Path{Name: "web", Match: link.Match{Port: 80}}
	crowd := make([]link.Path, 16)
	for i := range crowd {
		crowd[i] = link.Path{Name: string(rune('a' + i)), Match: link.Match{Port: uint16(i + 1)}}
	}
	for name, test := range map[string]struct {
		direction link.Direction
		accepted  bool
	}{
		"trace":                  {link.Direction{Trace: &link.Trace{Opportunities: []time.Duration{1}}}, false},
		"16 paths":               {link.Direction{Paths: crowd}, false},
		"15 paths":               {link.Direction{Paths: crowd[:15]}, true},
		"duplicate with a path":  {link.Direction{Shape: link.Shape{Duplicate: link.Chance{Probability: 0.1}}, Paths: []link.Path{path}}, false},
		"another discipline":     {link.Direction{Shape: rate(link.Queue{Packets: 1}), Schedule: step(rate(link.Queue{Packets: 1, Discipline: link.RED}))}, false},
		"another unit":           {link.Direction{Shape: rate(link.Queue{Packets: 1}), Schedule: step(rate(link.Queue{Bytes: 1}))}, false},
		"listed packets at last": {link.Direction{Schedule: step(link.Shape{Loss: link.Loss{Every: 2}})}, false},
		"rate at last":           {link.Direction{Schedule: step(rate(link.Queue{Packets: 9, Discipline: link.FQCoDel}), link.Shape{}, rate(link.Queue{Packets: 5, Discipline: link.FQCoDel}))}, true},
		"down and up":            {link.Direction{Shape: rate(link.Queue{Bytes: 1}), Schedule: step(link.Shape{Down: true, Rate: 1e6, Queue: link.Queue{Bytes: 1}}, rate(link.Queue{Bytes: 1}))}, true},
		"head-drop at last":      {link.Direction{Schedule: step(rate(link.Queue{Packets: 9, Discipline: link.HeadDrop}))}, false},
		"another, again":         {link.Direction{Schedule: link.Schedule{Period: time.Minute, Steps: step(rate(link.Queue{Packets: 9})).Steps}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.direction.Validate(); err != nil {
				t.Fatalf("the test is at fault: %v", err)
			}
			_, err := plans(test.direction, testFrame)
			if (err == nil) != test.accepted {
				t.Errorf("error %v, want accepted %v", err, test.accepted)
			}
		})
	}
}

// What is in flight must never be dropped for want of room: the limit of the delay
// grows with the delay and holds the queue behind it too.
func TestDelayHoldsAllInFlight(t *testing.T) {
	shape := link.Shape{Delay: time.Second, Rate: 1e9, Queue: link.Queue{Packets: 50000}}
	got, err := plan(shape, nil, 0, testFrame)
	if err != nil {
		t.Fatal(err)
	}
	if least := uint32(1e6 + 50000); got.delay.limit < least {
		t.Errorf("limit %d, want at least %d", got.delay.limit, least)
	}
}

// The kernel's jitter has no memory: this is its arithmetic (get_crandom and tabledist in
// net/sched/sch_netem.c), by which correlation is refused.
func TestJitterOfNetemHasNoMemory(t *testing.T) {
	const n = 100000
	r := rand.New(rand.NewPCG(1, 2))
	correlate := func(of func(uint32) float64) float64 {
		const rho = 0xe6666666 // 90 %
		last := r.Uint32()
		var before, sum, squares, products float64
		for range n {
			last = uint32((uint64(r.Uint32())*(1<<32-(rho+1)) + uint64(last)*(rho+1)) >> 32)
			x := of(last)
			sum += x
			squares += x * x
			products += x * before
			before = x
		}
		mean := sum / n
		return (products/n - mean*mean) / (squares/n - mean*mean)
	}
	if c := correlate(func(rnd uint32) float64 { return float64(rnd) }); c < 0.85 {
		t.Errorf("the numbers themselves are correlated by %.3f, want 0.9", c)
	}
	for name, draw := range map[string]func(uint32) float64{
		"table":   func(rnd uint32) float64 { return float64(rnd % tableSize) },
		"uniform": func(rnd uint32) float64 { return float64(rnd % (2 * uint32(time.Millisecond))) },
	} {
		if c := correlate(draw); math.Abs(c) > 0.03 {
			t.Errorf("%s: delays are correlated by %.3f: netem can do it after all", name, c)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(make([]byte, 20))
	message := append(make([]byte, 20), nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("netem")).Serialize()...)
	f.Add(append(message, delayQdisc{}.options().Serialize()...))
	for _, kind := range []feature{"pfifo", "red", "codel", "fq_codel", "pie", "cake"} {
		q, err := sample(kind)
		if err != nil {
			f.Fatal(err)
		}
		message := append(make([]byte, 20), nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(string(kind))).Serialize()...)
		f.Add(append(message, q.options().Serialize()...))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		s, err := parseState(message)
		if err != nil {
			return
		}
		var q tree
		_ = q.delay.decode(s.options)
		_ = q.rate.decode(s.options)
		_ = (&prioQdisc{}).decode(s.options)
		_, _, _ = decodeFlower(s.options)
		if l, err := decodeLeaf(s); err == nil {
			_ = l.queue(testFrame)
			_ = l.counts(s)
		}
		_ = messages(message, func(_, flags uint16, _ uint32, payload []byte) error { return acknowledged(flags, payload) })
	})
}
