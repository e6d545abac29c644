package access

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An address that failed too often waits, for a while, and no other with it; one IPv6 network is one address.
func TestLimiter(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := newLimiter()
	l.now = func() time.Time { return now }
	one, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")
	neighbour := netip.MustParseAddr("2001:db8::2")
	if _, ok := l.allowed(one); !ok {
		t.Fatal("who never failed must wait")
	}
	for n := range triesAtOnce {
		if _, ok := l.allowed(one); !ok {
			t.Fatalf("after %d failures one must wait", n)
		}
		l.failed(one)
	}
	wait, ok := l.allowed(neighbour)
	if ok || wait <= 0 || wait > tryEvery {
		t.Errorf("after %d failures: wait %v, %v", triesAtOnce, wait, ok)
	}
	if _, ok := l.allowed(other); !ok {
		t.Error("another network must wait")
	}
	now = now.Add(wait)
	if _, ok := l.allowed(one); !ok {
		t.Error("who has waited must wait on")
	}
}

// Failures from ever more addresses take no more memory.
func TestLimiterForgets(t *testing.T) {
	l := newLimiter()
	address := netip.MustParseAddr("10.0.0.0")
	for range maxTried + 100 {
		l.failed(address)
		address = address.Next()
	}
	if len(l.free) > maxTried {
		t.Errorf("%d addresses are remembered", len(l.free))
	}
}

// The authority's key is made once, for its owner alone, and is refused where others could have read it.
func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authority")
	first, err := OpenAuthority(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(dir, 0)
	if err != nil || !again.Certificate().Equal(first.Certificate()) {
		t.Errorf("opened again it is another, error %v", err)
	}
	key := filepath.Join(dir, "key.pem")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its key: %v, error %v", info, err)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir, 0); err == nil {
		t.Error("a key that everybody could read is used")
	}
}
