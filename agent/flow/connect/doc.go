// Package connect carries out flows of many connections: each with a handshake, requests and
// replies where the lab asks for them, a time of idleness, and an end by one side, at a rate or as
// fast as it goes.
//
// Each end is one event loop on one thread (package flow/loop), and each connection a small state in it
// (conn), the same at both ends but for who asks: which end does what follows from the
// specification, and nothing but TCP passes between them. The client makes one connect(2) a connection: an error is
// counted by its number and never tried again.
//
// The package refuses to count a connection as completed that did not end as the lab has it: in
// order, with TIME_WAIT at the end that went first, or with a reset where the lab wants one. It
// samples no TCP_INFO: there may be thousands of connections, each of less time than
// an interval.
package connect
