package keyservice

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys/keyservice/kmetest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes a certificate and its key as name.pem and name.key.
func (a *authority) issue(name string, from, until time.Time) {
	key := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", private)
}

// serve starts an HTTPS server that wants certificates of this authority.
func (a *authority) serve(h http.HandlerFunc, change func(*tls.Config)) string {
	a.issue("kme", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	pair, err := tls.LoadX509KeyPair(a.path("kme.pem"), a.path("kme.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	if change != nil {
		change(s.TLS)
	}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.URL
}

func (a *authority) client(url string) *Client {
	a.t.Helper()
	c, err := NewClient(Options{URL: url, CA: a.path("ca.pem"), Certificate: a.path("r1.pem"), Key: a.path("r1.key")})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
}

func (a *authority) get(c *Client) (Answer, error) {
	return c.Do(context.Background(), http.MethodGet, "/x", "", nil)
}

// valid is a certificate with most of its life before it.
func (a *authority) valid(name string) {
	a.issue(name, time.Now().Add(-time.Hour), time.Now().Add(100*time.Hour))
}

func TestMutualTLS(t *testing.T) {
	a := newAuthority(t)
	a.valid("r1")
	c := a.client(a.serve(hello, nil))
	answer, err := a.get(c)
	if err != nil || string(answer.Body) != "r1" {
		t.Fatalf("%+v, %v", answer, err)
	}
	if found := c.Findings(); len(found) > 0 {
		t.Errorf("X25519MLKEM768 and a new certificate: %v", found)
	}
	answer.Erase()
	if string(answer.Body) != "\x00\x00" {
		t.Errorf("after Erase there is %q", answer.Body)
	}
}

// TestKMEKnowsItsNode has the test's entity tell nodes by their certificates.
func TestKMEKnowsItsNode(t *testing.T) {
	a := newAuthority(t)
	network := kmetest.NewNetwork()
	for node, want := range map[string]int{"r1": http.StatusOK, "r2": http.StatusUnauthorized} {
		a.valid("r1")
		answer, err := a.client(a.serve(network.KME(node).ServeHTTP, nil)).Do(context.Background(), http.MethodPost,
			"/api/v1/keys/r3/enc_keys", "", []byte(`{"number":1,"size":256}`))
		if err != nil || answer.Status != want {
			t.Errorf("as r1 at the entity of %s: status %d, %v; want %d", node, answer.Status, err, want)
		}
	}
}

// TestClassicalTLS has a service that does not know ML-KEM: it is used, and it is said.
func TestClassicalTLS(t *testing.T) {
	a := newAuthority(t)
	a.valid("r1")
	c := a.client(a.serve(hello, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }))
	if _, err := a.get(c); err != nil {
		t.Fatal(err)
	}
	found := c.Findings()
	if len(found) != 1 || found[0].Code != health.ChannelNotHybrid || !strings.Contains(found[0].Detail, "X25519 was agreed on") || !strings.Contains(found[0].Detail, "keys are fetched all the same") {
		t.Errorf("found %v", found)
	}
}

// TestNoConnection goes through what keeps a client from its service, and the words.
func TestNoConnection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(*tls.Config)
		files  func(t *testing.T, a *authority)
		want   string
	}{
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil, "protocol version"},
		{"no certificate", nil, func(_ *testing.T, a *authority) { _ = os.Remove(a.path("r1.pem")) }, "reading this node's certificate: open"},
		{"no key", nil, func(_ *testing.T, a *authority) { _ = os.Remove(a.path("r1.key")) }, "reading the key of this node's certificate: open"},
		{"no authority", nil, func(_ *testing.T, a *authority) { _ = os.Remove(a.path("ca.pem")) }, "reading whom to trust: open"},
		{"no certificate of an authority", nil, func(t *testing.T, a *authority) {
			if err := os.WriteFile(a.path("ca.pem"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "there is no certificate in"},
		{"a key that others can read", nil, func(t *testing.T, a *authority) {
			if err := os.Chmod(a.path("r1.key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "its mode is 0644"},
		{"another's key", nil, func(t *testing.T, a *authority) {
			if err := os.Rename(a.path("kme.key"), a.path("r1.key")); err != nil {
				t.Fatal(err)
			}
		}, "do not belong together"},
		{"another authority's server", nil, func(t *testing.T, a *authority) {
			if err := os.Rename(newAuthority(t).path("ca.pem"), a.path("ca.pem")); err != nil {
				t.Fatal(err)
			}
		}, "unknown authority"},
		{"a certificate that is over", nil, func(_ *testing.T, a *authority) {
			a.issue("r1", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
		}, "expired certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthority(t)
			a.valid("r1")
			url := a.serve(hello, tt.server)
			if tt.files != nil {
				tt.files(t, a)
			}
			_, err := a.get(a.client(url))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if f := finding(err); f.Code != health.ChannelUnreachable {
				t.Errorf("the finding is %v", f)
			}
		})
	}
}

// TestRenewedCertificate puts new files in the place of old ones.
func TestRenewedCertificate(t *testing.T) {
	a := newAuthority(t)
	now := time.Now()
	c := a.client(a.serve(hello, nil))
	for _, tt := range []struct {
		name  string
		until time.Time
		want  health.Code
	}{
		{"over", now.Add(-time.Minute), health.CertificateExpired},
		{"soon", now.Add(time.Hour), health.CertificateEnding},
		{"new", now.Add(100 * time.Hour), ""},
	} {
		a.issue("r1", now.Add(-10*time.Hour), tt.until)
		c.http.CloseIdleConnections()
		answer, err := a.get(c)
		if (err != nil) != (tt.want == health.CertificateExpired) {
			t.Errorf("%s: %q, %v", tt.name, answer.Body, err)
		}
		found := c.Findings()
		if tt.want == "" {
			if len(found) > 0 {
				t.Errorf("%s: found %v", tt.name, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Code != tt.want || found[0].File != a.path("r1.pem") || !found[0].Until.Equal(tt.until.Truncate(time.Second)) {
			t.Errorf("%s: found %v", tt.name, found)
		}
	}
}

// TestAnswers goes through answers that are none.
func TestAnswers(t *testing.T) {
	a := newAuthority(t)
	a.valid("r1")
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		status int
		want   string
	}{
		{"long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxAnswer+1)) }, 0, "longer than 65536"},
		{"as long as may be", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxAnswer)) }, 200, ""},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "x")
		}, 0, "cut off after 1"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://elsewhere.example/", 302) }, 302, ""},
		{"not HTTP", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(conn, "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\r\n\r\n")
			_ = conn.Close()
		}, 0, "malformed HTTP"},
	} {
		answer, err := a.get(a.client(a.serve(tt.answer, nil)))
		if answer.Status != tt.status || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: status %d, %v; want %d, %q", tt.name, answer.Status, err, tt.status, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "c2Vjc") {
			t.Errorf("%s: the error quotes what may be a key: %v", tt.name, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"https://kme.example":             "https://kme.example",
		"https://kme.example:8443/base/":  "https://kme.example:8443/base",
		"http://kme.example":              "",
		"kme.example":                     "",
		"https://":                        "",
		"https://user:pass@kme.example":   "",
		"https://kme.example/?x=1":        "",
		"https://kme.example/#x":          "",
		"https://kme.example/%zz":         "",
		"https://[2001:db8::1]:443/a/b/c": "https://[2001:db8::1]:443/a/b/c",
	} {
		c, err := NewClient(Options{URL: url})
		if (err == nil) != (want != "") || err == nil && c.Where() != want {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"no key is available":  "no key is available",
		"a\nb\x1b[31m\tc\x00é": "a b?[31m c??",
		"c2VjcmV0c2VjcmV0/2VjcmV0c2VjcmV0c2VjcmV0cg== is the key": "(left out) is the key",
		"key " + strings.Repeat("0a", 32) + ", gone":              "key (left out), gone",
		"bc490419-7d60-487f-adc1-4ddcc177c139 not found":          "bc490419-7d60-487f-adc1-4ddcc177c139 not found",
		strings.Repeat("a b ", 1000):                              strings.Repeat("a b ", 50) + " (and more)",
	} {
		if got := Quote(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestBudget(t *testing.T) {
	b := budget{every: 10 * time.Second, burst: 3}
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var spent []int
	for s := range 60 {
		now := began.Add(time.Duration(s) * time.Second)
		if ready := !b.ready(now).After(now); ready != b.spend(now) {
			t.Errorf("after %d s it is ready (%t), and not", s, ready)
		} else if ready {
			spent = append(spent, s)
		}
	}
	if want := []int{0, 1, 2, 10, 20, 30, 40, 50}; !slices.Equal(spent, want) {
		t.Errorf("spent at %v, want %v", spent, want)
	}
	if late := began.Add(time.Hour); !b.spend(late) || !b.spend(late) || !b.spend(late) || b.spend(late) {
		t.Error("after an hour there are not three times at once, and no more")
	}
}

func TestRefusalIsNoConnection(t *testing.T) {
	if f := finding(&Refusal{Status: 599}); f.Code != health.KeyServiceRefused || f.Detail != "status 599" {
		t.Errorf("%v", f)
	}
	if f := finding(errors.New("no route to host")); f.Code != health.ChannelUnreachable {
		t.Errorf("%v", f)
	}
}
