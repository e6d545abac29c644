package http1

import "strconv"

// AppendRequestLine appends the first line of a request.
func AppendRequestLine(dst []byte, method, target string, v Version) []byte {
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, target...)
	dst = append(dst, ' ')
	dst = appendVersion(dst, v)
	return append(dst, "\r\n"...)
}

func appendVersion(dst []byte, v Version) []byte {
	dst = append(dst, "HTTP/1."...)
	return append(dst, '0'+byte(v))
}

// AppendStatusLine appends the first line of an answer.
func AppendStatusLine(dst []byte, v Version, status int) []byte {
	dst = appendVersion(dst, v)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason(status)...)
	return append(dst, "\r\n"...)
}

// reason is the phrase of the few statuses that the laboratory's ends answer with
// (RFC 9110, 15).
func reason(status int) string {
	switch status {
	case 200:
		return "OK"
	case 400:
		return "Bad Request"
	case 404:
		return "Not Found"
	case 502:
		return "Bad Gateway"
	case 504:
		return "Gateway Timeout"
	}
	return ""
}

// AppendField appends a header field.
func AppendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// AppendLength appends the field that says how long the body is.
func AppendLength(dst []byte, n uint64) []byte {
	dst = append(dst, FieldContentLength...)
	dst = append(dst, ": "...)
	dst = strconv.AppendUint(dst, n, 10)
	return append(dst, "\r\n"...)
}

// AppendEnd appends the empty line that ends a head.
func AppendEnd(dst []byte) []byte { return append(dst, "\r\n"...) }

// AppendChunk appends the line before a chunk of so many bytes, at least 1. The
// bytes and a CRLF follow.
func AppendChunk(dst []byte, n uint64) []byte {
	dst = strconv.AppendUint(dst, n, 16)
	return append(dst, "\r\n"...)
}

// AppendLastChunk appends the chunk without bytes, and an empty trailer: the body's
// end.
func AppendLastChunk(dst []byte) []byte { return append(dst, "0\r\n\r\n"...) }

// AppendForwarded appends a message's first line and those of its fields that go
// further than the next hop, as a proxy passes them on. Fields of its own and
// AppendEnd follow; Transfer-Encoding too, where the body is passed on as it came.
func AppendForwarded(dst []byte, h *Head, v Version) []byte {
	if h.Status > 0 {
		dst = AppendStatusLine(dst, v, h.Status)
	} else {
		dst = AppendRequestLine(dst, string(h.Method), string(h.Target), v)
	}
	for i := range h.Fields {
		if !h.HopByHop(i) {
			dst = AppendField(dst, string(h.Fields[i].Name), string(h.Fields[i].Value))
		}
	}
	return dst
}
