// Package http1 reads and writes messages of HTTP/1.0 and HTTP/1.1 (RFC 9112),
// piece by piece as they come, and decides what becomes of their connection. It
// does no input or output: bytes go in, events come out.
//
// It is for a laboratory, so it shows what is on the wire: each field as it was
// written, where a body's end is told by, and how a body was cut short. Nothing is
// copied that need not be: what [Parser.Parse] returns points into what it was given.
//
// It refuses what leaves two readers of one message in doubt where it ends
// (RFC 9112, 6.3 and 11.2): Content-Length beside Transfer-Encoding or twice,
// chunks in HTTP/1.0, lines that end otherwise than in CRLF, folded fields. Of
// transfer codings it knows chunked alone, and it does not switch protocols.
package http1
