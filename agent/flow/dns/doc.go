// Package dns is a name server in a node of a lab, lookups from a node, and the flow that has both.
//
// [Lookup] is for other kinds of flows, too: it asks from the namespace of a node, on a
// thread that has entered it, and says how long that took.
//
// The package refuses to answer for anything that the lab does not name: there is no way from a lab
// to any other name server.
package dns

// port is where name servers listen (RFC 1035, 4.2).
const port = 53
