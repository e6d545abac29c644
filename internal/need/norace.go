//go:build !race

package need

const raceEnabled = false
