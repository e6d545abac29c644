// Package identity is who tcplab's programs are to one another: names in certificates of a controller's
// own authority, the keys and certificates that a program keeps, the token with
// which it gets its first, and the TLS (1.3, mutual) that proves all of it.
//
// A certificate names its owner in a URI, tcplab://KIND/NAME, and its enrolment in the
// subject's serial number, so that who was removed and let in again under the same name is somebody
// else. DNS names and addresses in certificates mean nothing here.
//
// It refuses certificates of any other authority, of another kind than is expected, and
// keys that others than their owner can read.
package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"
)

// Kind is what kind of program a certificate names.
type Kind string

// The kinds there are.
const (
	Controller Kind = "controller"
	Agent      Kind = "agent"
	User       Kind = "user"
)

// scheme of the URI in a certificate.
const scheme = "tcplab"

// MaxName is the longest name in bytes (Principal.name).
const MaxName = 63

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// ValidName reports whether a program can have the name: 1 to 63 of a-z, 0-9, dot, hyphen and
// underscore, starting with a letter or digit.
func ValidName(name string) bool { return len(name) <= MaxName && nameForm.MatchString(name) }

// Identity is whom a certificate names.
type Identity struct {
	Kind Kind
	Name string
	// Enrolment tells this owner of the name from earlier ones. Empty for a controller.
	Enrolment string
}

// String is the identity for people: "user/alice".
func (i Identity) String() string { return string(i.Kind) + "/" + i.Name }

// URI is the name in the certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: scheme, Host: string(i.Kind), Path: "/" + i.Name}
}

// Of reads whom a certificate names. It does not say that this is true: see [Verify].
func Of(certificate *x509.Certificate) (Identity, error) {
	if len(certificate.URIs) != 1 {
		return Identity{}, fmt.Errorf("the certificate has %d URIs where one, %s://KIND/NAME, is wanted", len(certificate.URIs), scheme)
	}
	uri := certificate.URIs[0]
	i := Identity{Kind: Kind(uri.Host), Enrolment: certificate.Subject.SerialNumber}
	if len(uri.Path) > 1 {
		i.Name = uri.Path[1:]
	}
	known := i.Kind == Controller || i.Kind == Agent || i.Kind == User
	if !known || !ValidName(i.Name) || *uri != *i.URI() {
		return Identity{}, fmt.Errorf("the certificate names %q, which is no %s://KIND/NAME", uri, scheme)
	}
	return i, nil
}

// Verify holds the chain that a peer presented against an authority, and returns whom it
// names. Usage is what the peer does with it.
func Verify(chain []*x509.Certificate, authority *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("there is no certificate")
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now}); err != nil {
		return Identity{}, fmt.Errorf("the certificate is none of %s: %w", authority.Subject.CommonName, err)
	}
	return Of(chain[0])
}
