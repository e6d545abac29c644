package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if got, err := Load(path); err != nil || !cmp.Equal(got, Policy{}) {
		t.Errorf("without a file: %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("interfaces: {loopback: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || !got.Loopback {
		t.Errorf("Load: %+v, %v", got, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chmod 0644") {
		t.Errorf("a file that everybody can write: %v", err)
	}
}
