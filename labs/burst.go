package labs

import (
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type burstSpec struct {
	At     *node      `yaml:"-"`
	From   string     `yaml:"from" jsonschema:"required" jsonschema_description:"The node that connects and writes."`
	To     string     `yaml:"to" jsonschema:"required" jsonschema_description:"The node that listens and reads."`
	Writes []size     `yaml:"writes" jsonschema:"required,minItems=1" jsonschema_description:"Sizes of the successive writes of one round, 1B to 16MiB each."`
	Gaps   []duration `yaml:"gaps" jsonschema_description:"What the client waits after each write: one for all, or one a write, up to 1h. Default: none."`
	Count  *count     `yaml:"count" jsonschema_description:"Rounds, 1 to 10000; 10000 writes at most in all. Default 1."`
}

// maxBurstWrites bounds what a result tells write by write.
const maxBurstWrites = 10_000

func (c *converter) burst(s *burstSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".burst"
	b := &tcplabv1.Burst{Count: c.uint32(s.At.get("count"), s.Count)}
	if s.Count != nil && *s.Count == 0 {
		c.add(s.At.get("count").at, "", "want at least one round")
	}
	writes, gaps := s.At.get("writes"), s.At.get("gaps")
	for i, w := range s.Writes {
		b.Writes = append(b.Writes, c.uint32(writes.item(i), &w))
		c.from(writes.item(i), "%s.writes[%d]", path, i)
	}
	for i, g := range s.Gaps {
		b.Gaps = append(b.Gaps, g.proto())
		c.from(gaps.item(i), "%s.gaps[%d]", path, i)
	}
	f.Kind = &tcplabv1.Flow_Burst{Burst: b}
	c.from(s.At, "%s", path)
	for _, key := range []string{"writes", "gaps", "count"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
}

// burst checks one that is to end within the time.
func (v *validation) burst(field string, b *tcplabv1.Burst, within time.Duration) {
	writes, gaps, count := len(b.GetWrites()), len(b.GetGaps()), max(1, int(b.GetCount()))
	if writes*count > maxBurstWrites {
		v.add(field+".count", "", "%d rounds of %d writes are more than %d writes", count, writes, maxBurstWrites)
	}
	if gaps > 1 && gaps != writes {
		v.add(field+".gaps", "give one gap for all, or one for each write", "there are %d gaps for %d writes", gaps, writes)
		return
	}
	var round, last time.Duration
	for i := range writes {
		if gaps > 0 {
			last = b.GetGaps()[min(i, gaps-1)].AsDuration()
			round += last
		}
	}
	if all := time.Duration(count)*round - last; all >= within {
		v.add(field+".gaps", "raise the experiment's timeout", "the gaps take %v, and the experiment ends after %v", all, within)
	}
}
