package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// tokenPrefix begins every token, so that people and scanners of secrets know one.
const tokenPrefix = "tcplab-join-1."

// Sizes of a token's parts, in bytes. A secret of 128 bits is not guessed.
const (
	tokenIDSize     = 6
	tokenSecretSize = 16
)

// Token is what lets a program enrol, once.
type Token struct {
	ID        string            // tells it from others; no secret
	Secret    []byte            // 16 bytes
	Authority [sha256.Size]byte // SHA-256 of the authority's certificate, DER: what the program holds the controller against
}

// NewToken draws a token for an authority's certificate, DER.
func NewToken(authority []byte) (Token, error) {
	drawn := make([]byte, tokenIDSize+tokenSecretSize)
	if _, err := rand.Read(drawn); err != nil {
		return Token{}, fmt.Errorf("draw a token: %w", err)
	}
	return Token{ID: hex.EncodeToString(drawn[:tokenIDSize]), Secret: drawn[tokenIDSize:], Authority: sha256.Sum256(authority)}, nil
}

// String is the token as it is handed over.
func (t Token) String() string {
	whole, err := hex.DecodeString(t.ID)
	if err != nil {
		return ""
	}
	whole = append(append(whole, t.Secret...), t.Authority[:]...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(whole)
}

// ParseToken reads a token that was handed over.
func ParseToken(text string) (Token, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("a join token begins with %s", tokenPrefix)
	}
	whole, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(whole) != tokenIDSize+tokenSecretSize+sha256.Size {
		return Token{}, errors.New("the join token is not whole: copy all of it")
	}
	t := Token{ID: hex.EncodeToString(whole[:tokenIDSize]), Secret: whole[tokenIDSize : tokenIDSize+tokenSecretSize]}
	copy(t.Authority[:], whole[tokenIDSize+tokenSecretSize:])
	return t, nil
}
