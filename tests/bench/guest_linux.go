package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/tcplab/tcplab/internal/uml"
)

// bootTime is what a guest may take to boot and to end.
const bootTime = 30 * time.Second

// inGuest has a measurement done in a user-mode-linux guest, whose kernel has what this
// machine's may lack: this program runs itself there, once for each time.
func inGuest(m Measurement) Measurement {
	m.Limit += bootTime
	m.Once = func(ctx context.Context) ([]Figure, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		var out, diagnostics bytes.Buffer
		if err := uml.Run(ctx, uml.Config{Stdout: &out, Stderr: &diagnostics}, self, "-inside", m.Name); err != nil {
			return nil, fmt.Errorf("%w: %s", err, diagnostics.String())
		}
		var figures []Figure
		if err := json.Unmarshal(out.Bytes(), &figures); err != nil {
			return nil, fmt.Errorf("read the guest's figures %q: %w", out.String(), err)
		}
		return figures, nil
	}
	return m
}

// inside is inGuest's part in the guest.
func inside(ctx context.Context, measurements []Measurement, name string) error {
	for _, m := range measurements {
		if m.Name != name {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, m.Limit)
		defer cancel()
		figures, err := m.Once(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(figures)
	}
	return fmt.Errorf("no measurement %q is done in a guest", name)
}
