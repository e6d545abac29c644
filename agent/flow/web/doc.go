// Package web carries out http flows: a client, a server and proxies of HTTP/1, made for
// what they do with connections, each the one event loop (package flow/loop) of its node on
// a thread of its own; and HTTP/2 by the standard library.
//
// The ends share nothing that a network would not carry: the target of a request
// says which object it is for, and each end knows the lab. Bodies are zeros that are
// thrown away where they arrive. What each end has counted is joined when all have ended.
//
//   - The client has a list of objects and a number of connections that it may have. It
//     keeps to RFC 9112, 9: it sends again what is idempotent and was lost, a POST
//     never, and no pipeline begins at once on a connection that follows one that failed.
//   - The server answers the requests of a connection one after another. It ends
//     connections as the lab has it, also badly.
//   - A smart proxy answers for each hop by itself; a dumb one is deaf once it relays.
//
// Connections end in order (see package flow/socket), but where the lab wants otherwise. A
// server that is to close at once does, with bounded patience of the kernel for
// what is then an orphan.
//
// It refuses to judge by the specification what the client noticed: a body that was cut short
// is an error where HTTP can tell, and none where it cannot, and then counted apart.
package web
