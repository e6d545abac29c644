package store

import (
	"crypto/rand"
	"fmt"
	"math/big"
)

// The alphabet of run IDs: a digit, a consonant, a digit, a consonant ("7k2q").
// No two characters look alike (no 0 and o, no 1 and l and i), no vowel lets
// an ID spell a word, and any of them can be said over a telephone.
const (
	idDigits     = "23456789"
	idConsonants = "bcdfghjkmnpqrstvwxz"
)

// drawID draws an ID for a run of lab: its name, a hyphen, and pairs of a
// digit and a consonant. Two pairs are 23,104 IDs for each lab.
func drawID(lab string, pairs int) (string, error) {
	id := []byte(lab + "-")
	for range pairs {
		for _, alphabet := range []string{idDigits, idConsonants} {
			n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
			if err != nil {
				return "", fmt.Errorf("draw a run ID: %w", err)
			}
			id = append(id, alphabet[n.Int64()])
		}
	}
	return string(id), nil
}
