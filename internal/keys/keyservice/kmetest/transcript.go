package kmetest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Transcript writes down what a client and entities say. It is safe for use by several
// goroutines.
type Transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

// String is what was said so far.
func (t *Transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// Note adds a line of the test's.
func (t *Transcript) Note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(&t.text, "# "+format+"\n", args...)
}

// Of is an http.RoundTripper to k whose requests and answers are written down.
func (t *Transcript) Of(k *KME) http.RoundTripper { return recorded{t, k} }

type recorded struct {
	transcript *Transcript
	kme        *KME
}

// RoundTrip implements http.RoundTripper.
func (r recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil {
		sent, _ = io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := r.kme.RoundTrip(req)
	r.transcript.mu.Lock()
	defer r.transcript.mu.Unlock()
	out := &r.transcript.text
	fmt.Fprintf(out, "%s > %s %s\n", r.kme.node, req.Method, req.URL.RequestURI())
	if len(sent) > 0 {
		fmt.Fprintf(out, "%s > %s\n", r.kme.node, sent)
	}
	if err != nil {
		fmt.Fprintf(out, "%s < no answer\n\n", r.kme.node)
		return nil, err
	}
	got, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(got))
	fmt.Fprintf(out, "%s < %d %s\n", r.kme.node, resp.StatusCode, http.StatusText(resp.StatusCode))
	if body := strings.TrimSpace(string(got)); body != "" {
		fmt.Fprintf(out, "%s < %s\n", r.kme.node, body)
	}
	fmt.Fprintln(out)
	return resp, nil
}
