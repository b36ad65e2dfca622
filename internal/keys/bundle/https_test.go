package bundle

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

// web serves a tree, and can be told to behave otherwise.
type web struct {
	*httptest.Server
	mu       sync.Mutex
	tree     http.Handler
	other    http.HandlerFunc // instead of the tree
	statuses map[int]int
	curves   map[tls.CurveID]bool
	versions map[uint16]bool
}

func serve(t *testing.T, tree string) *web {
	w := &web{tree: http.FileServer(http.Dir(tree)), statuses: map[int]int{}, curves: map[tls.CurveID]bool{}, versions: map[uint16]bool{}}
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.curves[req.TLS.CurveID], w.versions[req.TLS.Version] = true, true
		if w.other != nil {
			w.other(rw, req)
			return
		}
		if text, err := os.ReadFile(filepath.Join(tree, filepath.Clean(req.URL.Path))); err == nil {
			s, err := signed.Parse(text)
			if err == nil {
				rw.Header().Set("ETag", `"`+s.Digest()+`"`)
			}
		}
		counted := &status{ResponseWriter: rw, code: http.StatusOK}
		w.tree.ServeHTTP(counted, req)
		w.statuses[counted.code]++
	}))
	w.StartTLS()
	t.Cleanup(w.Close)
	return w
}

func (w *web) instead(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.other = h
}

type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// ca is a file with the server's certificate.
func (w *web) ca(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHTTPS(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	server := serve(t, f.opts.Out)
	plain := httptest.NewServer(http.FileServer(http.Dir(f.opts.Out)))
	defer plain.Close()
	conf := f.config("a")
	conf.Source, conf.CA = server.URL, server.ca(t)
	n := newNode(t, conf)
	w := n.watch("ab")
	w.has(names(0, 1))
	if got := n.Where("ab"); got != server.URL+"/a" {
		t.Errorf("where: %q", got)
	}
	f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
	s := w.has(names(0, 1, 2))
	if file := s.Keys[keys.Epoch{Number: epochAt(2)}].File; file != server.URL+"/a/"+fileName(epochAt(2)) {
		t.Errorf("the file is %q", file)
	}
	// What has not changed is not sent again.
	for range 5 {
		n.ticks <- start
	}
	server.mu.Lock()
	if ok, same := server.statuses[http.StatusOK], server.statuses[http.StatusNotModified]; ok != 5 || same < 4 {
		t.Errorf("%d files were sent, and %d were not", ok, same)
	}
	if len(server.curves) != 1 || !server.curves[tls.X25519MLKEM768] || len(server.versions) != 1 || !server.versions[tls.VersionTLS13] {
		t.Errorf("key exchange %v, versions %v", server.curves, server.versions)
	}
	server.mu.Unlock()

	// Whatever the server does, what is in force stays.
	for _, test := range []struct {
		name   string
		other  http.HandlerFunc
		want   health.Code
		detail string
	}{
		{"nothing there", http.NotFound, health.ChannelUnreachable, "404"},
		{"no access", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, health.ChannelUnreachable, "403"},
		{"a redirect to http", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
		}, health.ChannelUnreachable, "not https"},
		{"a redirect in a circle", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, server.URL+r.URL.Path, http.StatusFound)
		}, health.ChannelUnreachable, "more than five times"},
		{"an endless body", func(w http.ResponseWriter, _ *http.Request) {
			for range signed.MaxSize >> 16 {
				_, _ = w.Write(make([]byte, 1<<16))
			}
			_, _ = w.Write([]byte("x"))
		}, health.BundleMalformed, "larger than"},
		{"a body that is cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(f.read("a", indexFile)[:100])
		}, health.ChannelUnreachable, "EOF"},
		{"something else", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, health.BundleMalformed, "first line"},
	} {
		server.instead(test.other)
		s := w.has(names(0, 1, 2), test.want)
		if !strings.Contains(s.Findings[0].Detail, test.detail) {
			t.Errorf("%s: %+v", test.name, s.Findings)
		}
		server.instead(nil)
		w.has(names(0, 1, 2))
	}
	server.CloseClientConnections()
	server.Close()
	w.has(names(0, 1, 2), health.ChannelUnreachable)
}

// A redirect within https is followed, a client that is given is used, and a server
// that nobody vouches for is not believed.
func TestHTTPSClients(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	server := serve(t, f.opts.Out)
	front := serve(t, t.TempDir())
	front.instead(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, server.URL+r.URL.Path, http.StatusFound)
	})
	conf := f.config("a")
	conf.Source, conf.HTTP = front.URL, server.Client()
	newNode(t, conf).watch("ab").has(names(0, 1))

	conf = f.config("a")
	conf.Source = server.URL
	w := newNode(t, conf).watch("ab")
	s := w.until(func(keys.Snapshot) bool { return true })
	if !s.Unavailable || s.Findings[0].Code != health.ChannelUnreachable || !strings.Contains(s.Findings[0].Detail, "certificate") {
		t.Errorf("without its CA: %+v", s)
	}
	conf.CA = filepath.Join(t.TempDir(), "ca.pem")
	w = newNode(t, conf).watch("ab")
	s = w.until(func(keys.Snapshot) bool { return true })
	if !s.Unavailable || !strings.Contains(s.Findings[0].Detail, "CA of its server") {
		t.Errorf("without the CA's file: %+v", s)
	}
	text, err := os.ReadFile(server.ca(t))
	if err == nil {
		err = os.WriteFile(conf.CA, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.has(names(0, 1))
}

// Whoever serves the bundles, and signs nothing, does not decide how much of it an agent
// keeps.
func TestServerDoesNotFillMemory(t *testing.T) {
	f := newFleet(t)
	f.issue(func(o *Options) { o.Epochs = []uint64{1, 2, 3, 4, 5, 6, 7, 8} })
	web := serve(t, f.opts.Out)
	junk := bytes.Repeat([]byte("x"), signed.MaxSize)
	web.instead(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, suffix) {
			http.ServeFile(w, r, filepath.Join(f.opts.Out, r.URL.Path))
			return
		}
		w.Header().Set("ETag", `"x"`)
		_, _ = w.Write(junk)
	})
	conf := f.config("a")
	conf.Source, conf.CA = web.URL, web.ca(t)
	ch, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	ch.fetch(t.Context(), func() {})
	kept, may := 0, signed.Overhead
	for _, a := range ch.src.(*server).seen {
		kept += len(a.text)
	}
	for _, l := range ch.index.Bundles {
		may += int(l.Size) + signed.Overhead
	}
	if len(ch.trouble) == 0 || kept > may {
		t.Errorf("%d octets are kept of %d bundles that may have %d; findings %v", kept, len(ch.index.Bundles), may, ch.trouble)
	}
}
