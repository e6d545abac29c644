package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// putToken keeps a token of an ID, whose secret is that too.
func putToken(t testing.TB, s *store.Store, id string) []byte {
	t.Helper()
	secret := sha256.Sum256([]byte(id))
	token := &tcplabv1.Token{Id: id, ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}
	if err := s.PutToken(context.Background(), token, secret[:]); err != nil {
		t.Fatal(err)
	}
	return secret[:]
}

// enrol lets in an agent of a name.
func enrol(s *store.Store, id string, secret []byte, name string, replace bool, then func(store.Member)) error {
	return s.Enrol(context.Background(), id, secret, func(*tcplabv1.Token) (store.Entry, error) {
		return store.Entry{
			Member: store.Member{
				Principal: &tcplabv1.Principal{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Name: name}, Enrolment: id,
			},
			Replace: replace, Audit: &tcplabv1.AuditEntry{Who: name},
		}, nil
	}, then)
}

// Of many who use one token at a time, one is let in; those with a token of their own all are, and what fails among
// them takes no other with it.
func TestEnrolTogether(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const each = 50
	shared := putToken(t, s, "shared")
	secrets := make([][]byte, each)
	for i := range secrets {
		secrets[i] = putToken(t, s, fmt.Sprint("own-", i))
	}
	var in, refused atomic.Int64
	var all sync.WaitGroup
	for i := range each {
		all.Go(func() {
			switch err := enrol(s, "shared", shared, fmt.Sprint("shared-", i), false, func(store.Member) { in.Add(1) }); {
			case errors.Is(err, store.ErrToken):
				refused.Add(1)
			case err != nil:
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := enrol(s, fmt.Sprint("own-", i), secrets[i], fmt.Sprint("own-", i), false, func(store.Member) {}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if in.Load() != 1 || refused.Load() != each-1 {
		t.Errorf("one token let in %d and refused %d", in.Load(), refused.Load())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if members, err := s.Members(t.Context()); err != nil || len(members) != each+1 {
		t.Errorf("%d are in, error %v; want %d", len(members), err, each+1)
	}
	if tokens, err := s.Tokens(t.Context(), "", 1000); err != nil || len(tokens) != 0 {
		t.Errorf("%d tokens are left, error %v", len(tokens), err)
	}
	if audit, err := s.Audit(t.Context(), 0, 1000); err != nil || len(audit) != each+1 {
		t.Errorf("%d are in the audit log, error %v; want %d", len(audit), err, each+1)
	}
}

// Whoever follows who is in by what then is told ends with what is on disk, however closely changes follow one another.
func TestThenIsInOrder(t *testing.T) {
	s := open(t, t.TempDir())
	const tries = 40
	secrets := make([][]byte, tries)
	for i := range secrets {
		secrets[i] = putToken(t, s, fmt.Sprint(i))
	}
	now := "" // of then, which is called by one at a time
	var all sync.WaitGroup
	for i := range tries {
		all.Go(func() {
			if err := enrol(s, fmt.Sprint(i), secrets[i], "host-a", true, func(m store.Member) { now = m.Enrolment }); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			err := s.DeleteMember(t.Context(), tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, "host-a", func() { now = "" })
			if err != nil && rpcerr.From(err).Code != codes.NotFound {
				t.Error(err)
			}
		})
	}
	all.Wait()
	members, err := s.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept := ""
	if len(members) > 0 {
		kept = members[0].Enrolment
	}
	if kept != now {
		t.Errorf("on disk is %q, told was %q", kept, now)
	}
}

// A store that was closed says so, and one whose caller has gone is not written to.
func TestWriteEnds(t *testing.T) {
	s := open(t, t.TempDir())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.PutHost(gone, &tcplabv1.FleetHost{Name: "host-a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller that has gone: %v", err)
	}
	if hosts, err := s.Hosts(t.Context()); err != nil || len(hosts) != 0 {
		t.Errorf("%d hosts, error %v", len(hosts), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := s.PutHost(t.Context(), &tcplabv1.FleetHost{Name: "host-a"})
	wantError(t, err, codes.Internal, rpcerr.Storage, "closed")
}

// BenchmarkEnrol is what a join waits for the disk, alone and beside 63 others.
func BenchmarkEnrol(b *testing.B) {
	for _, beside := range []int{1, 64} {
		b.Run(fmt.Sprint(beside), func(b *testing.B) {
			s, err := store.Open(b.Context(), b.TempDir(), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			secrets := make([][]byte, b.N)
			for i := range secrets {
				secrets[i] = putToken(b, s, fmt.Sprint(i))
			}
			b.ResetTimer()
			var next atomic.Int64
			var all sync.WaitGroup
			for range beside {
				all.Go(func() {
					for i := next.Add(1) - 1; int(i) < b.N; i = next.Add(1) - 1 {
						if err := enrol(s, fmt.Sprint(i), secrets[i], fmt.Sprint("host-", i), false, func(store.Member) {}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}
