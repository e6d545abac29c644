package http1

import (
	"bytes"
	"testing"
)

// FuzzParse holds that a stream is told alike however it comes in pieces, that all of
// it is used, and that nothing brings the parser down.
func FuzzParse(f *testing.F) {
	for _, c := range streams {
		if len(c.in) <= 1000 {
			f.Add([]byte(c.in), c.answers, c.expect == "HEAD", uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, answers, head bool, piece uint8) {
		if len(in) > 4096 {
			return
		}
		read := func(size int) string {
			p := parserOf(answers)
			if head {
				p.Expect("HEAD")
			}
			var pieces []string
			for rest := in; len(rest) > 0; {
				n := min(size, len(rest))
				pieces, rest = append(pieces, string(rest[:n])), rest[n:]
			}
			return told(p, pieces...)
		}
		whole, parts := read(len(in)+1), read(int(piece)+1)
		if whole != parts {
			t.Errorf("whole:\n%s\nin pieces of %d:\n%s", whole, int(piece)+1, parts)
		}
	})
}

// FuzzWrite holds that what is written is read back as it was.
func FuzzWrite(f *testing.F) {
	f.Add("GET", "/1", "X-Name", "some value", []byte("body"), uint8(2), true)
	f.Add("POST", "*", "A", "", []byte{}, uint8(0), false)
	f.Fuzz(func(t *testing.T, method, target, name, value string, body []byte, chunk uint8, chunked bool) {
		if len(method)+len(target)+len(name)+len(value)+len(body) > 4096 || !isToken([]byte(name)) {
			return
		}
		out := AppendRequestLine(nil, method, target, HTTP11)
		out = AppendField(out, name, value)
		if chunked {
			out = AppendField(out, FieldTransferEncoding, "chunked")
		} else {
			out = AppendLength(out, uint64(len(body)))
		}
		out = AppendEnd(out)
		if chunked {
			for rest := body; len(rest) > 0; {
				n := min(int(chunk)+1, len(rest))
				out = AppendChunk(out, uint64(n))
				out = append(append(out, rest[:n]...), "\r\n"...)
				rest = rest[n:]
			}
			out = AppendLastChunk(out)
		} else {
			out = append(out, body...)
		}
		p := NewRequests()
		event, used, _, err := p.Parse(out)
		if err != nil {
			return // a method, target or field that is none
		}
		h := p.Head()
		special := h.Fields[0].Is(FieldContentLength) || h.Fields[0].Is(FieldTransferEncoding)
		if event != GotHead || special {
			return
		}
		if string(h.Method) != method || string(h.Target) != target || string(h.Fields[0].Name) != name ||
			string(h.Fields[0].Value) != string(trim([]byte(value))) {
			t.Fatalf("%q was read as %q %q %q %q", out, h.Method, h.Target, h.Fields[0].Name, h.Fields[0].Value)
		}
		var got []byte
		for in := out[used:]; ; {
			event, used, data, err := p.Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			in = in[used:]
			got = append(got, data...)
			if event == GotEnd {
				if len(in) > 0 {
					t.Fatalf("%q was left over", in)
				}
				break
			}
			if event == More {
				t.Fatal("it does not end")
			}
		}
		if !bytes.Equal(got, body) {
			t.Errorf("the body %q was read as %q", body, got)
		}
	})
}
