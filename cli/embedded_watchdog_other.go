//go:build !linux

package cli

import "errors"

func (a *app) watch([]string) error { return errors.New("an agent, and its watchdog, run on Linux") }
