package main

import "slices"

// flowArea is traffic and what one sees of it, kind by kind.
func flowArea() Area {
	return Area{Name: "flows", Checks: slices.Concat(captureChecks(), faultChecks(), connectChecks(), httpChecks(), execChecks(), dnsChecks())}
}
