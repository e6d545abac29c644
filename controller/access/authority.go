package access

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"time"

	"github.com/tcplab/tcplab/internal/identity"
)

// Lives of certificates. The authority's is that of its fleet: replacing it means that all join anew.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	// DefaultLife is that of all others, which are renewed at half of it.
	DefaultLife = 30 * 24 * time.Hour
)

// skew is how far a clock may be behind the controller's for a new certificate to be valid there.
const skew = 5 * time.Minute

// Authority signs certificates: that of the controller, and those of all whom it lets in.
type Authority struct {
	key         crypto.Signer
	certificate *x509.Certificate
	life        time.Duration
}

// OpenAuthority reads the authority in a folder, or makes it there: a key with mode 0600 and a certificate.
// Life is that of the certificates it signs; 0 means DefaultLife. A folder with a key and no certificate
// was never whole, and is begun anew.
func OpenAuthority(dir string, life time.Duration) (*Authority, error) {
	if life == 0 {
		life = DefaultLife
	}
	certificate, err := identity.LoadAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(dir, life)
	}
	if err != nil {
		return nil, err
	}
	key, err := identity.LoadKey(dir)
	if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("open the certificate authority: the key and the certificate in %s do not belong together: restore both from one backup", dir)
	}
	return &Authority{key: key, certificate: certificate, life: life}, nil
}

func newAuthority(dir string, life time.Duration) (*Authority, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("tcplab authority %x", serial.Bytes()[:4])},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it signs no further authority
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	if err := identity.SaveAuthority(dir, key, der); err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	return &Authority{key: key, certificate: certificate, life: life}, nil
}

// Certificate is the authority's.
func (a *Authority) Certificate() *x509.Certificate { return a.certificate }

// Sign makes a certificate (DER) for whoever has the key.
func (a *Authority) Sign(whom identity.Identity, key crypto.PublicKey) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: whom.String(), SerialNumber: whom.Enrolment},
		// Half of the life is counted from here.
		NotBefore:             now.Add(-min(skew, a.life/100)),
		NotAfter:              now.Add(a.life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{whom.URI()},
		BasicConstraintsValid: true,
	}
	if whom.Kind != identity.User { // an agent may be dialed
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", whom, err)
	}
	return der, nil
}

// Issue makes a credential of the controller's own, which never leaves its memory.
func (a *Authority) Issue(name string) (*identity.Credential, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	der, err := a.Sign(identity.Identity{Kind: identity.Controller, Name: name}, key.Public())
	if err != nil {
		return nil, err
	}
	return identity.NewCredential(key, der, a.certificate.Raw)
}

// newSerial draws a serial number of 128 bits (RFC 5280, section 4.1.2.2, permits 160).
func newSerial() (*big.Int, error) {
	drawn := make([]byte, 16)
	if _, err := rand.Read(drawn); err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	drawn[0] = drawn[0]&0x7f | 0x40 // positive, and of full length
	return new(big.Int).SetBytes(drawn), nil
}
