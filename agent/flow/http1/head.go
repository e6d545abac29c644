package http1

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// Version is a minor version of HTTP/1.
type Version int

// The versions.
const (
	HTTP10 Version = 0 // RFC 1945
	HTTP11 Version = 1 // RFC 9112
)

// String is the version as it stands in a message.
func (v Version) String() string { return "HTTP/1." + strconv.Itoa(int(v)) }

// Names of header fields that say something about the connection or the
// body's end.
const (
	FieldConnection       = "Connection"
	FieldKeepAlive        = "Keep-Alive"
	FieldProxyConnection  = "Proxy-Connection"
	FieldContentLength    = "Content-Length"
	FieldTransferEncoding = "Transfer-Encoding"
)

// Field is a header field: its name as it was written, its value without the
// blanks around it.
type Field struct {
	Name, Value []byte
}

// Is reports whether the field has the name, whose letters' case says nothing.
func (f *Field) Is(name string) bool {
	return len(f.Name) == len(name) && strings.EqualFold(string(f.Name), name)
}

// Head is what comes before a message's body.
type Head struct {
	Method, Target []byte // of a request
	Status         int    // of an answer; 0: it is a request
	Version        Version
	Fields         []Field // in the order in which they came
}

// Value is the value of the first field with the name, or nil.
func (h *Head) Value(name string) []byte {
	for i := range h.Fields {
		if h.Fields[i].Is(name) {
			return h.Fields[i].Value
		}
	}
	return nil
}

// Lists reports whether a field that is a list (RFC 9110, 5.6.1) has the token,
// in any of the lines that it stands on.
func (h *Head) Lists(name, token string) bool {
	for i := range h.Fields {
		if h.Fields[i].Is(name) && lists(h.Fields[i].Value, token) {
			return true
		}
	}
	return false
}

func lists(value []byte, token string) bool {
	for len(value) > 0 {
		item := value
		if comma := bytes.IndexByte(value, ','); comma >= 0 {
			item, value = value[:comma], value[comma+1:]
		} else {
			value = nil
		}
		if item = trim(item); len(item) == len(token) && strings.EqualFold(string(item), token) {
			return true
		}
	}
	return false
}

// Persists reports whether the connection stays open after this message and what
// belongs to it, as far as the message's own end is concerned (RFC 9112, 9.3): in
// HTTP/1.1 unless it says close, in HTTP/1.0 only if it says keep-alive.
func (h *Head) Persists() bool {
	switch {
	case h.Lists(FieldConnection, "close"):
		return false
	case h.Version >= HTTP11:
		return true
	default:
		return h.Lists(FieldConnection, "keep-alive")
	}
}

// PersistsByProxy is [Head.Persists] for a proxy that takes Proxy-Connection for
// Connection, where that is not there: the field that clients sent to proxies, since one that does not know
// Connection passes it on (RFC 9112, C.2.2).
func (h *Head) PersistsByProxy() bool {
	if h.Value(FieldConnection) == nil && h.Version < HTTP11 {
		return h.Lists(FieldProxyConnection, "keep-alive")
	}
	return h.Persists()
}

// HopByHop reports whether the i-th field is meant for the next hop alone, so that a
// proxy that knows HTTP does not pass it on: Connection, what it names
// (RFC 9110, 7.6.1), and those known to be so. Transfer-Encoding is one of them,
// though who passes a body on as it came passes that on, too.
func (h *Head) HopByHop(i int) bool {
	f := &h.Fields[i]
	known := []string{FieldConnection, FieldKeepAlive, FieldProxyConnection, FieldTransferEncoding, "TE", "Upgrade"}
	return slices.ContainsFunc(known, f.Is) || h.Lists(FieldConnection, string(f.Name))
}

// IsIdempotent reports whether a request with the method may be sent again where it is not
// known whether it was carried out (RFC 9110, 9.2.2).
func IsIdempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// trim takes blanks and tabs off both ends: what RFC 9110, 5.6.3 calls OWS.
func trim(b []byte) []byte { return bytes.Trim(b, " \t") }
