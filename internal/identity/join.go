package identity

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// HTTP2 is the protocol (ALPN) of gRPC.
const HTTP2 = "h2"

// Join exchanges a token for a certificate with the controller at an address (host:port), which must
// prove the authority that the token pins before anything is sent. The key stays here. Name may be
// empty: it is the token's.
func Join(ctx context.Context, address string, token Token, name string) (*Credential, *tcplabv1.Principal, error) {
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	request, err := Request(key)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(pinned(token))))
	if err != nil {
		return nil, nil, fmt.Errorf("reach the controller %s: %w", address, err)
	}
	defer conn.Close()
	response, err := tcplabv1.NewAccessServiceClient(conn).Enrol(ctx, &tcplabv1.EnrolRequest{Token: token.String(), Name: name, CertificateRequest: request})
	if err != nil {
		return nil, nil, fmt.Errorf("join the controller %s: %w", address, err)
	}
	if sha256.Sum256(response.GetAuthority()) != token.Authority {
		return nil, nil, errors.New("the controller's answer names another authority than the token")
	}
	c, err := NewCredential(key, response.GetCertificate(), response.GetAuthority())
	if err != nil {
		return nil, nil, fmt.Errorf("join the controller %s: %w", address, err)
	}
	return c, response.GetPrincipal(), nil
}

// pinned is the TLS of one who knows nothing of the controller but the hash of its authority's certificate.
func pinned(token Token) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{HTTP2},
		InsecureSkipVerify: true, // of public authorities: VerifyConnection holds it against the token's
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, candidate := range state.PeerCertificates {
				if sha256.Sum256(candidate.Raw) != token.Authority {
					continue
				}
				i, err := Verify(state.PeerCertificates, candidate, x509.ExtKeyUsageServerAuth, time.Now())
				if err == nil && i.Kind != Controller {
					err = fmt.Errorf("%s answers where a controller was expected", i)
				}
				return err
			}
			return rpcerr.New(codes.Unauthenticated, rpcerr.RequestInvalid, "", "what answers is not the controller that made the token")
		},
	}
}

// Renewal asks for a new certificate of a key.
type Renewal func(ctx context.Context, request []byte) (certificate []byte, err error)

// How often a renewal that failed is tried again, as parts of the certificate's life, and at least.
const (
	retryPart  = 40
	retryLeast = time.Second
)

// KeepFresh replaces a credential's certificate whenever it is time, and keeps it in dir unless that is empty,
// until ctx ends. Failures are told and tried again.
func KeepFresh(ctx context.Context, c *Credential, dir string, renew Renewal, failed func(error)) {
	for {
		leaf := c.Leaf()
		wait := max(0, time.Until(RenewAt(leaf)))
		for {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			err := renewOnce(ctx, c, dir, renew)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			failed(err)
			wait = max(retryLeast, leaf.NotAfter.Sub(leaf.NotBefore)/retryPart)
		}
	}
}

func renewOnce(ctx context.Context, c *Credential, dir string, renew Renewal) error {
	request, err := Request(c.key)
	if err != nil {
		return err
	}
	certificate, err := renew(ctx, request)
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	if err := c.Replace(certificate); err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	if dir == "" {
		return nil
	}
	return SaveCertificate(dir, c)
}

// PublicKey reads the key that a certificate is asked for, and refuses requests that are not
// signed with it, and keys other than ECDSA P-256 and Ed25519.
func PublicKey(request []byte) (crypto.PublicKey, error) {
	refuse := func(err error) error {
		return rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "the certificate request: %w", err)
	}
	parsed, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, refuse(err)
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, refuse(err)
	}
	if !acceptable(parsed.PublicKey) {
		return nil, refuse(errors.New("its key is neither ECDSA P-256 nor Ed25519"))
	}
	return parsed.PublicKey, nil
}
