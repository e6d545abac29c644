//go:build race

package uml

// raceDetector says whether this binary is built with the race detector.
const raceDetector = true
