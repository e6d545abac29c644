package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// NewKey makes a key for a certificate.
func NewKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// Request asks for a certificate of a key (PKCS #10, DER).
func Request(key crypto.Signer) ([]byte, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("ask for a certificate: %w", err)
	}
	return request, nil
}

// Credential is a key with its certificate, which may be replaced while it is in use, and the
// authority's certificate. Its methods are safe for concurrent use.
type Credential struct {
	key       crypto.Signer
	authority *x509.Certificate

	mu   sync.Mutex
	leaf *x509.Certificate
}

// NewCredential joins a key, its certificate and the authority's, both DER. It refuses a certificate
// of another key, or another authority.
func NewCredential(key crypto.Signer, certificate, authority []byte) (*Credential, error) {
	root, err := x509.ParseCertificate(authority)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	c := &Credential{key: key, authority: root}
	return c, c.Replace(certificate)
}

// Replace puts a newer certificate of the same key in place. Connections that stand keep theirs.
func (c *Credential) Replace(certificate []byte) error {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.key.Public()) {
		return errors.New("the certificate is of another key")
	}
	if err := leaf.CheckSignatureFrom(c.authority); err != nil {
		return fmt.Errorf("the certificate is of another authority: %w", err)
	}
	if _, err := Of(leaf); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaf = leaf
	return nil
}

// Leaf is the certificate now.
func (c *Credential) Leaf() *x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaf
}

// Authority is the authority's certificate.
func (c *Credential) Authority() *x509.Certificate { return c.authority }

// Key is the key.
func (c *Credential) Key() crypto.Signer { return c.key }

// Identity is whom the certificate names.
func (c *Credential) Identity() Identity {
	i, _ := Of(c.Leaf()) // as Replace has found it
	return i
}

// present is the certificate as TLS wants it, with the authority's behind it: who joins holds that against its token.
func (c *Credential) present() *tls.Certificate {
	leaf := c.Leaf()
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, c.authority.Raw}, PrivateKey: c.key, Leaf: leaf}
}

// Client is the TLS of one who dials a program of a kind, and speaks a protocol (ALPN) with it.
func (c *Credential) Client(peer Kind, protocol string) *tls.Config {
	config := c.Base()
	config.NextProtos = []string{protocol}
	config.InsecureSkipVerify = true // of host names: VerifyConnection holds the peer's against the authority
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.present(), nil }
	config.VerifyConnection = func(state tls.ConnectionState) error {
		i, err := Verify(state.PeerCertificates, c.authority, x509.ExtKeyUsageServerAuth, time.Now())
		if err == nil && i.Kind != peer {
			err = fmt.Errorf("%s answers where a %s was expected", i, peer)
		}
		return err
	}
	return config
}

// Server is the TLS of one who is dialed, and speaks one of the protocols. Any certificate is
// let in, and none: the caller holds it against the authority with [Verify], so that it can say what is
// wrong in its own protocol.
func (c *Credential) Server(protocols ...string) *tls.Config {
	config := c.Base()
	config.NextProtos = protocols
	config.ClientAuth = tls.RequestClientCert
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.present(), nil }
	return config
}

// Base is what all TLS here has in common.
func (c *Credential) Base() *tls.Config {
	// A resumed session would outlive the certificate that it began with.
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

// spread is how far a renewal may be from the middle of a certificate's life, as a part of that
// life: a fleet that joined together renews apart.
const spread = 10 // one in

// RenewAt is when to replace a certificate: at half its life, give or take a tenth of its life.
func RenewAt(certificate *x509.Certificate) time.Time {
	life := certificate.NotAfter.Sub(certificate.NotBefore)
	middle := certificate.NotBefore.Add(life / 2)
	width := int64(2 * life / spread)
	if width <= 0 {
		return middle
	}
	drawn, err := rand.Int(rand.Reader, big.NewInt(width))
	if err != nil {
		return middle
	}
	return middle.Add(time.Duration(drawn.Int64() - width/2))
}
