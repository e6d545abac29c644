package http1

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// told is what a parser says of a stream, as text: each message's first line,
// fields, framing and body, how the connection's end was taken, or the error.
func told(p *Parser, pieces ...string) string {
	var out strings.Builder
	var body strings.Builder
	for _, piece := range pieces {
		for in := []byte(piece); ; {
			event, used, data, err := p.Parse(in)
			if err != nil {
				fmt.Fprintf(&out, "error: %v\n", err)
				return out.String()
			}
			in = in[used:]
			switch event {
			case GotHead:
				h := p.Head()
				if h.Status > 0 {
					fmt.Fprintf(&out, "%s %d", h.Version, h.Status)
				} else {
					fmt.Fprintf(&out, "%s %s %s", h.Method, h.Target, h.Version)
				}
				for _, f := range h.Fields {
					fmt.Fprintf(&out, " [%s=%s]", f.Name, f.Value)
				}
				fmt.Fprintf(&out, " persists=%v %s", h.Persists(), p.Body().Framing)
				if p.Body().Framing == Length {
					fmt.Fprintf(&out, " %d", p.Body().Length)
				}
				out.WriteString("\n")
			case GotData:
				body.Write(data)
			case GotEnd:
				fmt.Fprintf(&out, "body %q of %d\n", body.String(), p.BodyBytes())
				body.Reset()
			}
			if event == More {
				if len(in) > 0 {
					return "More, and not all was used"
				}
				break
			}
		}
	}
	ended, err := p.Finish()
	switch {
	case err != nil:
		fmt.Fprintf(&out, "cut short: %v\n", err)
	case ended:
		fmt.Fprintf(&out, "body %q ended\n", body.String())
	}
	return out.String()
}

var streams = []struct {
	name    string
	answers bool
	expect  string // method of the first answer's request
	in      string
	want    string
}{
	{
		name: "two requests",
		in:   "GET /1 HTTP/1.1\r\nHost: server\r\n\r\n\r\nPOST /2 HTTP/1.0\r\nContent-Length: 3\r\nConnection: Keep-Alive\r\n\r\nabc",
		want: "GET /1 HTTP/1.1 [Host=server] persists=true none\nbody \"\" of 0\n" +
			"POST /2 HTTP/1.0 [Content-Length=3] [Connection=Keep-Alive] persists=true content-length 3\nbody \"abc\" of 3\n",
	},
	{
		name: "an old request", in: "GET / HTTP/1.0\r\n\r\n",
		want: "GET / HTTP/1.0 persists=false none\nbody \"\" of 0\n",
	},
	{
		name: "a later minor version is 1.1", in: "GET / HTTP/1.7\r\n\r\n",
		want: "GET / HTTP/1.1 persists=true none\nbody \"\" of 0\n",
	},
	{
		name: "a chunked request with extension and trailer",
		in:   "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;a=b\r\nabc\r\nA \r\n0123456789\r\n0\r\nDigest: x\r\n\r\nGET /2 HTTP/1.1\r\nConnection: x , close\r\n\r\n",
		want: "POST / HTTP/1.1 [Transfer-Encoding=CHUNKED] persists=true chunked\nbody \"abc0123456789\" of 13\n" +
			"GET /2 HTTP/1.1 [Connection=x , close] persists=false none\nbody \"\" of 0\n",
	},
	{
		name: "answers with each framing", answers: true,
		in: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:  2 \r\n\r\nokHTTP/1.1 204\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.0 200 OK\r\n\r\nall the rest",
		want: "HTTP/1.1 100 persists=true none\nbody \"\" of 0\n" +
			"HTTP/1.1 200 [content-length=2] persists=true content-length 2\nbody \"ok\" of 2\n" +
			"HTTP/1.1 204 persists=true none\nbody \"\" of 0\n" +
			"HTTP/1.1 304 [Content-Length=9] persists=true none\nbody \"\" of 0\n" +
			"HTTP/1.1 200 [Transfer-Encoding=chunked] persists=true chunked\nbody \"\" of 0\n" +
			"HTTP/1.0 200 persists=false close-delimited\nbody \"all the rest\" ended\n",
	},
	{
		name: "the answer to HEAD has no body", answers: true, expect: "HEAD",
		in:   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		want: "HTTP/1.1 200 [Content-Length=5] persists=true none\nbody \"\" of 0\nHTTP/1.1 200 [Content-Length=5] persists=true content-length 5\nbody \"hello\" of 5\n",
	},
	{
		name: "cut short by length", answers: true, in: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcd",
		want: "HTTP/1.1 200 [Content-Length=10] persists=true content-length 10\ncut short: the connection ended after 4 of 10 bytes of the body\n",
	},
	{
		name: "cut short in chunks", answers: true, in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
		want: "HTTP/1.1 200 [Transfer-Encoding=chunked] persists=true chunked\ncut short: the connection ended after 4 bytes of a body, before its last chunk\n",
	},
	{
		name: "not known to be cut short", answers: true, in: "HTTP/1.1 200 OK\r\n\r\nabcd",
		want: "HTTP/1.1 200 persists=true close-delimited\nbody \"abcd\" ended\n",
	},
	{
		name: "cut short in the head", answers: true, in: "HTTP/1.1 200 OK\r\nConte",
		want: "cut short: the connection ended inside a head\n",
	},
	{name: "nothing", in: "", want: ""},
	{name: "no request line", in: "GET /\r\n\r\n", want: "error: \"GET /\" is no request line: method, target and version with one blank between\n"},
	{name: "no method", in: "G(T / HTTP/1.1\r\n\r\n", want: "error: \"G(T\" is no method\n"},
	{name: "no target", in: "GET a b HTTP/1.1\r\n\r\n", want: "error: \"a b\" is no target\n"},
	{name: "HTTP/2's preface", in: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: "error: \"HTTP/2.0\" is no version of HTTP/1\n"},
	{name: "a blank before the colon", in: "GET / HTTP/1.1\r\nHost : a\r\n\r\n", want: "error: \"Host : a\" is no header field\n"},
	{name: "a folded field", in: "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", want: "error: \" c\" is no header field\n"},
	{name: "a bare line feed", in: "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", want: "error: the field A has control characters\n"},
	{name: "two lengths", in: "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", want: "error: Content-Length is there twice\n"},
	{name: "length and chunks", in: "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", want: "error: Content-Length and Transfer-Encoding in one message: it has two ends\n"},
	{name: "chunks in 1.0", in: "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", want: "error: Transfer-Encoding in HTTP/1.0, which has none\n"},
	{name: "another coding", in: "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", want: "error: the transfer coding \"gzip, chunked\" is not known: chunked is\n"},
	{name: "a signed length", in: "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", want: "error: \"+1\" is no Content-Length\n"},
	{name: "a long length", in: "POST / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n", want: "error: \"9999999999999999999\" is no Content-Length\n"},
	{name: "no chunk's size", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", want: "POST / HTTP/1.1 [Transfer-Encoding=chunked] persists=true chunked\nerror: \"xyz\" is no size of a chunk\n"},
	{name: "a chunk too long", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", want: "POST / HTTP/1.1 [Transfer-Encoding=chunked] persists=true chunked\nerror: \"bc\" stands where a chunk should have ended\n"},
	{name: "no status line", answers: true, in: "HTTP/1.1 2000 OK\r\n\r\n", want: "error: \"HTTP/1.1 2000 OK\" is no status line\n"},
	{name: "protocols switched", answers: true, in: "HTTP/1.1 101 Switching\r\n\r\n", want: "error: the peer switches protocols, which nobody asked for\n"},
	{name: "a status below 100", answers: true, in: "HTTP/1.1 099\r\n\r\n", want: "error: 99 is no status\n"},
	{
		name: "too much head", in: "GET / HTTP/1.1\r\nA: " + strings.Repeat("a", MaxHead) + "\r\n\r\n",
		want: fmt.Sprintf("error: a head of more than %d bytes\n", MaxHead),
	},
	{
		name: "too many fields", in: "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", MaxFields+1) + "\r\n",
		want: fmt.Sprintf("error: more than %d fields\n", MaxFields),
	},
}

func TestStreams(t *testing.T) {
	for _, c := range streams {
		t.Run(c.name, func(t *testing.T) {
			for _, cut := range []int{len(c.in), 1, 2, 3, 7} {
				var pieces []string
				for rest := c.in; rest != ""; {
					n := min(max(cut, 1), len(rest))
					pieces, rest = append(pieces, rest[:n]), rest[n:]
				}
				p := parserOf(c.answers)
				p.Expect(c.expect)
				if diff := cmp.Diff(c.want, told(p, pieces...)); diff != "" {
					t.Errorf("in pieces of %d (-want +got):\n%s", cut, diff)
				}
			}
		})
	}
}

func parserOf(answers bool) *Parser {
	if answers {
		return NewAnswers()
	}
	return NewRequests()
}

func TestErrorStays(t *testing.T) {
	p := NewRequests()
	_, _, _, first := p.Parse([]byte("no request\r\n\r\n"))
	_, _, _, second := p.Parse([]byte("GET / HTTP/1.1\r\n\r\n"))
	if _, last := p.Finish(); first == nil || !errors.Is(second, first) || !errors.Is(last, first) {
		t.Errorf("errors %v, %v, %v", first, second, last)
	}
}

// TestSkippedBody has a reader throw bodies away unseen.
func TestSkippedBody(t *testing.T) {
	p := NewAnswers()
	event, used, _, err := p.Parse([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nab"))
	if event != GotHead || used != 41 || err != nil || p.Skippable() != 1000 {
		t.Fatalf("%v, used %d, %v, %d bytes to skip", event, used, err, p.Skippable())
	}
	if event, _, data, _ := p.Parse([]byte("ab")); event != GotData || string(data) != "ab" || p.Skippable() != 998 {
		t.Fatalf("%v, %d bytes to skip", event, p.Skippable())
	}
	p.Skip(998)
	if event, _, _, err := p.Parse(nil); event != GotEnd || err != nil || p.BodyBytes() != 1000 || !p.Between() {
		t.Fatalf("%v, %v, %d bytes", event, err, p.BodyBytes())
	}
}

// TestParsesWithoutMemory keeps garbage out of what is measured.
func TestParsesWithoutMemory(t *testing.T) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nServer: some\r\n\r\nhello")
	p := NewAnswers()
	n := testing.AllocsPerRun(1000, func() {
		for in := answer; ; {
			event, used, _, err := p.Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			if event == GotHead && !p.Head().Persists() {
				t.Fatal("it does not persist")
			}
			in = in[used:]
			if event == GotEnd {
				return
			}
		}
	})
	if n > 0 {
		t.Errorf("%v allocations an answer", n)
	}
}

func TestForwarded(t *testing.T) {
	in := "GET /1 HTTP/1.0\r\nHost: origin\r\nConnection: Keep-Alive, X-Mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nProxy-Connection: keep-alive\r\nAccept: */*\r\n\r\n"
	p := NewRequests()
	if event, _, _, err := p.Parse([]byte(in)); event != GotHead || err != nil {
		t.Fatal(event, err)
	}
	if got, want := string(AppendForwarded(nil, p.Head(), HTTP11)), "GET /1 HTTP/1.1\r\nHost: origin\r\nAccept: */*\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPersistsByProxy(t *testing.T) {
	for in, want := range map[string]bool{
		"GET / HTTP/1.0\r\n\r\n":                                                         false,
		"GET / HTTP/1.0\r\nProxy-Connection: Keep-Alive\r\n\r\n":                         true,
		"GET / HTTP/1.0\r\nProxy-Connection: keep-alive\r\nConnection: close\r\n\r\n":    false,
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n":                               true,
		"GET / HTTP/1.1\r\nProxy-Connection: close\r\n\r\n":                              true,
		"GET / HTTP/1.0\r\nProxy-Connection: close\r\nConnection: keep-alive, x\r\n\r\n": true,
	} {
		p := NewRequests()
		if event, _, _, err := p.Parse([]byte(in)); event != GotHead || err != nil {
			t.Fatal(event, err)
		}
		if got := p.Head().PersistsByProxy(); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestIdempotent(t *testing.T) {
	for method, want := range map[string]bool{"GET": true, "HEAD": true, "PUT": true, "DELETE": true, "POST": false, "PATCH": false, "get": false} {
		if got := IsIdempotent(method); got != want {
			t.Errorf("%s: %v", method, got)
		}
	}
}

// A message is whole when its last byte has come, before its end is told.
func TestWhole(t *testing.T) {
	for _, message := range []string{
		"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		p := NewRequests()
		in := []byte(message)
		for len(in) > 0 {
			if p.Whole() {
				t.Errorf("%q is whole before %q", message, in)
			}
			event, used, _, err := p.Parse(in[:1])
			if err != nil || event == GotEnd {
				if len(in) > 1 || err != nil {
					t.Fatalf("at %q: %v, %v", in, event, err)
				}
				in = nil
				break
			}
			in = in[used:]
		}
		if in != nil && !p.Whole() {
			t.Errorf("%q is not whole at its end", message)
		}
		if event, _, _, err := p.Parse(nil); in != nil && (event != GotEnd || err != nil) {
			t.Errorf("the end of %q is told as %v, %v", message, event, err)
		}
		if p.Whole() {
			t.Errorf("%q is whole after its end was told", message)
		}
	}
}
