package verify

import "testing"

func TestBacklogDrops(t *testing.T) {
	for content, want := range map[string]uint64{
		"0000a1c9 00000000 00000002 0 0\n000017aa 0000001f 00000001 0 0\n": 31,
		"00000001 00000010\n": 16,
		"":                    0,
	} {
		if got, err := parseBacklogDrops(content); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", content, got, err, want)
		}
	}
	for _, content := range []string{"00000001\n", "x y\n"} {
		if got, err := parseBacklogDrops(content); err == nil {
			t.Errorf("%q is taken for %d", content, got)
		}
	}
	if _, err := backlogDrops(); err != nil {
		t.Error(err)
	}
}
