package identity_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tcplab/tcplab/internal/identity"
)

// authority signs certificates of any form.
type authority struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert}
}

func (a *authority) sign(t *testing.T, key crypto.PublicKey, usage x509.ExtKeyUsage, uris ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{SerialNumber: "e1"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute),
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	for _, text := range uris {
		uri, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, uri)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestOf(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		uris []string
		want identity.Identity
	}{
		{[]string{"tcplab://agent/host-a"}, identity.Identity{Kind: identity.Agent, Name: "host-a", Enrolment: "e1"}},
		{[]string{"tcplab://user/alice.b_c"}, identity.Identity{Kind: identity.User, Name: "alice.b_c", Enrolment: "e1"}},
		{[]string{"tcplab://controller/lab1"}, identity.Identity{Kind: identity.Controller, Name: "lab1", Enrolment: "e1"}},
		{nil, identity.Identity{}},
		{[]string{"tcplab://agent/a", "tcplab://controller/b"}, identity.Identity{}},
		{[]string{"tcplab://admin/a"}, identity.Identity{}},
		{[]string{"spiffe://agent/a"}, identity.Identity{}},
		{[]string{"tcplab://agent/a/b"}, identity.Identity{}},
		{[]string{"tcplab://agent/../b"}, identity.Identity{}},
		{[]string{"tcplab://agent/"}, identity.Identity{}},
		{[]string{"tcplab://agent/A"}, identity.Identity{}},
		{[]string{"tcplab://x@agent/a"}, identity.Identity{}},
		{[]string{"tcplab://agent/a?role=admin"}, identity.Identity{}},
		{[]string{"tcplab://agent/" + strings.Repeat("a", 64)}, identity.Identity{}},
	} {
		got, err := identity.Of(a.sign(t, a.key.Public(), x509.ExtKeyUsageClientAuth, c.uris...))
		if got != c.want && err == nil || (err == nil) != (c.want != identity.Identity{}) {
			t.Errorf("%v: got %v, error %v; want %v", c.uris, got, err, c.want)
		}
	}
}

func TestVerify(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	const uri = "tcplab://agent/host-a"
	good := ours.sign(t, ours.key.Public(), x509.ExtKeyUsageClientAuth, uri)
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		now   time.Time
		ok    bool
	}{
		"good":          {[]*x509.Certificate{good}, time.Now(), true},
		"none":          {nil, time.Now(), false},
		"another's":     {[]*x509.Certificate{theirs.sign(t, ours.key.Public(), x509.ExtKeyUsageClientAuth, uri)}, time.Now(), false},
		"a server's":    {[]*x509.Certificate{ours.sign(t, ours.key.Public(), x509.ExtKeyUsageServerAuth, uri)}, time.Now(), false},
		"expired":       {[]*x509.Certificate{good}, time.Now().Add(2 * time.Minute), false},
		"the authority": {[]*x509.Certificate{ours.cert}, time.Now(), false},
	} {
		if _, err := identity.Verify(c.chain, ours.cert, x509.ExtKeyUsageClientAuth, c.now); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestToken(t *testing.T) {
	made, err := identity.NewToken([]byte("an authority's certificate"))
	if err != nil {
		t.Fatal(err)
	}
	read, err := identity.ParseToken("  " + made.String() + "\n")
	if err != nil || read.ID != made.ID || string(read.Secret) != string(made.Secret) || read.Authority != sha256.Sum256([]byte("an authority's certificate")) {
		t.Errorf("%v became %v, error %v", made, read, err)
	}
	for _, text := range []string{"", "tcplab-join-1.", made.String()[:80], made.String() + "A", "x" + made.String()} {
		if _, err := identity.ParseToken(text); err == nil {
			t.Errorf("%q is taken for a token", text)
		}
	}
}

func FuzzToken(f *testing.F) {
	made, err := identity.NewToken(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(made.String())
	f.Fuzz(func(t *testing.T, text string) {
		if read, err := identity.ParseToken(text); err == nil && read.String() != strings.TrimSpace(text) {
			t.Errorf("%q became %q", text, read)
		}
	})
}

// A folder gives back what was kept in it, and nothing that others could have read.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := identity.Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	a := newAuthority(t)
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.NewCredential(key, a.sign(t, key.Public(), x509.ExtKeyUsageClientAuth, "tcplab://user/alice").Raw, a.cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.Save(dir, c); err != nil {
		t.Fatal(err)
	}
	read, err := identity.Load(dir)
	if err != nil || read.Identity() != c.Identity() {
		t.Fatalf("%v, error %v", read, err)
	}
	path := filepath.Join(dir, "key.pem")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, error %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Load(dir); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := identity.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, error %v", left, err)
	}
}

// A certificate of another key or authority does not replace one.
func TestReplace(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const uri = "tcplab://user/alice"
	c, err := identity.NewCredential(key, ours.sign(t, key.Public(), x509.ExtKeyUsageClientAuth, uri).Raw, ours.cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"key":       ours.sign(t, ours.key.Public(), x509.ExtKeyUsageClientAuth, uri).Raw,
		"authority": theirs.sign(t, key.Public(), x509.ExtKeyUsageClientAuth, uri).Raw,
		"name":      ours.sign(t, key.Public(), x509.ExtKeyUsageClientAuth).Raw,
		"form":      {1, 2, 3},
	} {
		if err := c.Replace(der); err == nil {
			t.Errorf("a certificate of another %s replaces ours", name)
		}
	}
}

// Renewals are spread over half of the life, a tenth to each side, and not all at one moment.
func TestRenewAt(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	cert := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(100 * time.Hour)}
	seen := make(map[time.Time]bool)
	for range 200 {
		at := identity.RenewAt(cert)
		if after := at.Sub(begin); after < 40*time.Hour || after > 60*time.Hour {
			t.Fatalf("renewed after %v of 100 h", after)
		}
		seen[at] = true
	}
	if len(seen) < 100 {
		t.Errorf("200 certificates are renewed at %d moments", len(seen))
	}
}

func TestPublicKey(t *testing.T) {
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.PublicKey(request); err != nil {
		t.Error(err)
	}
	request[len(request)-1] ^= 1 // its signature
	if _, err := identity.PublicKey(request); err == nil {
		t.Error("a request that is not signed with its key is taken")
	}
}
