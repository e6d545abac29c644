package store

import "testing"

// FuzzPageToken hands in tokens that nobody gave out: one that is accepted must
// be the one that is given out for its place.
func FuzzPageToken(f *testing.F) {
	f.Add("", "nagle", int64(1))
	f.Add(Query{Lab: "nagle"}.encodeToken(7), "nagle", int64(-1))
	f.Add(Query{Lab: "nagle"}.encodeToken(7), "handshake", int64(1<<62))
	f.Fuzz(func(t *testing.T, token, lab string, seq int64) {
		q := Query{Lab: lab, PageToken: token}
		if place, err := q.decodeToken(); err == nil && q.encodeToken(place) != token {
			t.Errorf("token %q is taken for place %d, whose token is %q", token, place, q.encodeToken(place))
		}
		q.PageToken = q.encodeToken(seq)
		if place, err := q.decodeToken(); err != nil || place != seq {
			t.Errorf("place %d became %d, error %v", seq, place, err)
		}
	})
}
