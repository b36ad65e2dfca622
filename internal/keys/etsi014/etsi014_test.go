package etsi014

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/keys/keyservice/kmetest"
)

var update = flag.Bool("update", false, "write the transcripts anew")

func newTest(t testing.TB, node string, transport http.RoundTripper) *service {
	t.Helper()
	s, err := newService(keyservice.Options{Node: node, URL: "https://kme.example/base", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stripped takes the base path of the URL away, which the entity knows nothing of.
type stripped struct{ next http.RoundTripper }

func (s stripped) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = strings.TrimPrefix(r.URL.Path, "/base"), strings.TrimPrefix(r.URL.RawPath, "/base")
	return s.next.RoundTrip(r)
}

// TestTranscript writes down what is said of keys and of faults; the keys in it are
// test data.
func TestTranscript(t *testing.T) {
	var said kmetest.Transcript
	network := kmetest.NewNetwork()
	k1, k2 := network.KME("fra1-r1"), network.KME("ams1-r2")
	r1, r2 := newTest(t, "fra1-r1", stripped{said.Of(k1)}), newTest(t, "ams1-r2", stripped{said.Of(k2)})
	ctx := context.Background()
	note := func(err error) {
		if err != nil {
			said.Note("%v", err)
		}
	}

	said.Note("One end asks for a key, and the other for the key with its id.")
	id, key, err := r1.New(ctx, "ams1-r2")
	note(err)
	got, err := r2.Get(ctx, "fra1-r1", id)
	note(err)
	if !key.Equal(got) || !bytes.Equal(key.Bytes(), kmetest.Key(id)) {
		t.Errorf("%q is another key at each end", id)
	}
	said.Note("It is given once.")
	_, err = r2.Get(ctx, "fra1-r1", id)
	note(err)
	said.Note("There is no key in store.")
	k1.Set(kmetest.Faults{Empty: true})
	_, _, err = r1.New(ctx, "ams1-r2")
	note(err)
	said.Note("The entities are not connected.")
	k1.Set(kmetest.Faults{Unsynchronised: true})
	id, _, err = r1.New(ctx, "ams1-r2")
	note(err)
	_, err = r2.Get(ctx, "fra1-r1", id)
	note(err)
	said.Note("The entities know the method GET only.")
	k1.Set(kmetest.Faults{GetOnly: true})
	k2.Set(kmetest.Faults{GetOnly: true})
	for range 2 {
		id, _, err = r1.New(ctx, "ams1-r2")
		note(err)
		_, err = r2.Get(ctx, "fra1-r1", id)
		note(err)
	}

	file := filepath.Join("testdata", "transcript.txt")
	if *update {
		if err := os.WriteFile(file, []byte(said.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if said.String() != string(want) {
		t.Errorf("it is not as in %s (go test -update writes it anew; read it then):\n%s", file, said.String())
	}
}

// answering is an entity that has one answer to everything but status.
type answering struct {
	status int
	body   string
	stored string // the answer to status; empty: none
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/status") {
		if a.stored == "" {
			return nil, errors.New("no route to host")
		}
		a.status, a.body = 200, a.stored
	}
	return &http.Response{StatusCode: a.status, ContentLength: -1, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

var key32 = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xef}, 16))

// TestAnswers goes through all answers that are no key, to both requests.
func TestAnswers(t *testing.T) {
	const id = "bc490419-7d60-487f-adc1-4ddcc177c139"
	good := fmt.Sprintf(`{"keys":[{"key_ID":%q,"key":%q}]}`, id, key32)
	for _, tt := range []struct {
		name    string
		answer  answering
		err     string // part of it; empty: there is a key
		unknown bool   // with an id
	}{
		{"key", answering{200, good, ""}, "", false},
		{"extensions", answering{200, fmt.Sprintf(`{"keys":[{"key_ID":%q,"key_ID_extension":{},"key":%q,"key_extension":1}],"key_container_extension":[{}]}`, id, key32), ""}, "", false},
		{"escaped solidus", answering{200, strings.ReplaceAll(good, "/", `\/`), ""}, "", false},
		{"white space", answering{200, " \n" + good + "\n", ""}, "", false},
		{"400", answering{400, `{"message":"bad request format","details":[{"x":"y"}]}`, ""}, "status 400 (Bad Request): bad request format", true},
		{"401", answering{401, `{"message":"unknown SAE"}`, ""}, "status 401 (Unauthorized): unknown SAE", false},
		{"403", answering{403, ``, ""}, "status 403 (Forbidden)", false},
		{"404", answering{404, `<html>not here</html>`, ""}, "status 404 (Not Found)", true},
		{"410", answering{410, ``, ""}, "status 410 (Gone)", true},
		{"500", answering{500, `{"message":7}`, ""}, "status 500 (Internal Server Error)", false},
		{"503", answering{503, `{"message":"no keys"}`, ""}, "status 503 (Service Unavailable): no keys", false},
		{"504", answering{504, `{"error":"late"}`, ""}, "status 504 (Gateway Timeout): late", false},
		{"302", answering{302, ``, ""}, "status 302 (Found)", false},
		{"201", answering{201, good, ""}, "status 201 (Created)", false},
		{"a message of many lines", answering{503, `{"message":"a\nb\u001b[1m` + strings.Repeat("x y ", 200) + `"}`, ""}, "status 503 (Service Unavailable): a b?[1mx y", false},
		{"a message with a key", answering{503, `{"message":"` + key32 + `"}`, ""}, "status 503 (Service Unavailable): (left out)", false},
		{"no body", answering{200, ``, ""}, "it is not the JSON that it must be", false},
		{"HTML", answering{200, `<html></html>`, ""}, "it is not the JSON that it must be", false},
		{"two values", answering{200, good + good, ""}, "it is not the JSON that it must be", false},
		{"a list", answering{200, `[]`, ""}, "it is not the JSON that it must be", false},
		{"other types", answering{200, `{"keys":[{"key_ID":7,"key":"x"}]}`, ""}, "it is not the JSON that it must be", false},
		{"an error with status 200", answering{200, `{"message":"no keys"}`, ""}, "there are 0 keys in it", false},
		{"two keys", answering{200, fmt.Sprintf(`{"keys":[{"key_ID":"a","key":%q},{"key_ID":"b","key":%q}]}`, key32, key32), ""}, "there are 2 keys in it", false},
		{"no key", answering{200, `{"keys":[{"key_ID":"a"}]}`, ""}, "there is no key in it", false},
		{"a key that is a number", answering{200, `{"keys":[{"key_ID":"a","key":1}]}`, ""}, "there is no key in it", false},
		{"a key that is no base64", answering{200, `{"keys":[{"key_ID":"a","key":"` + key32[1:] + `"}]}`, ""}, "the key is not base64", false},
		{"base64 for URLs", answering{200, `{"keys":[{"key_ID":"a","key":"` + strings.ReplaceAll(key32, "+", "-") + `"}]}`, ""}, "the key is not base64", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTest(t, "r1", tt.answer)
			for _, call := range []string{"enc_keys", "dec_keys"} {
				var err error
				var octets int
				if call == "enc_keys" {
					got, key, e := s.New(context.Background(), "r2")
					err, octets = e, key.Len()
					if err == nil && got != id {
						t.Errorf("the id is %q", got)
					}
				} else {
					key, e := s.Get(context.Background(), "r2", id)
					err, octets = e, key.Len()
				}
				if tt.err == "" {
					if err != nil || octets != 32 {
						t.Errorf("%s: %d octets, %v", call, octets, err)
					}
					continue
				}
				refused, ok := errors.AsType[*keyservice.Refusal](err)
				if !ok || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("%s: %v, want %q", call, err, tt.err)
				}
				if call == "dec_keys" && refused.Unknown != tt.unknown {
					t.Errorf("%s: unknown is %t", call, refused.Unknown)
				}
				if octets > 0 || strings.Contains(err.Error(), key32[:16]) || len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("%s: %q", call, err)
				}
			}
		})
	}
}

// TestStatusExplains adds to a refusal what the status says.
func TestStatusExplains(t *testing.T) {
	for _, tt := range []struct{ stored, want string }{
		{`{"stored_key_count":0}`, "status 503 (Service Unavailable): none; by its status it has no keys for the far end in store"},
		{`{"stored_key_count":5,"max_key_size":128}`, "status 503 (Service Unavailable): none; by its status it has no keys of 256 bits for the far end"},
		{`{"stored_key_count":5,"min_key_size":512}`, "status 503 (Service Unavailable): none; by its status it has no keys of 256 bits for the far end"},
		{`{"stored_key_count":5,"max_key_size":1024,"min_key_size":64}`, "status 503 (Service Unavailable): none"},
		{`{}`, "status 503 (Service Unavailable): none"},
		{`x`, "status 503 (Service Unavailable): none"},
		{``, "status 503 (Service Unavailable): none"},
	} {
		_, _, err := newTest(t, "r1", answering{503, `{"message":"none"}`, tt.stored}).New(context.Background(), "r2")
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %q", tt.stored, err, tt.want)
		}
	}
}

func TestAnotherID(t *testing.T) {
	s := newTest(t, "r1", answering{200, fmt.Sprintf(`{"keys":[{"key_ID":"BC49","key":%q}]}`, key32), ""})
	if _, err := s.Get(context.Background(), "r2", "bc49"); err != nil {
		t.Errorf("digits of another case: %v", err)
	}
	if _, err := s.Get(context.Background(), "r2", "bc48"); err == nil || !strings.Contains(err.Error(), "the key of another id") {
		t.Errorf("another id: %v", err)
	}
}

func TestNames(t *testing.T) {
	var path string
	s := newTest(t, "r1", transport(func(r *http.Request) (*http.Response, error) {
		path = r.URL.EscapedPath()
		return nil, errors.New("no route to host")
	}))
	if _, _, err := s.New(context.Background(), "a/b?c"); err == nil || err.Error() != "no route to host" {
		t.Errorf("%v", err)
	}
	if want := "/base/api/v1/keys/a%2Fb%3Fc/enc_keys"; path != want {
		t.Errorf("asked at %s, want %s", path, want)
	}
}

type transport func(r *http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"keys":[{"key_ID":"bc490419-7d60-487f-adc1-4ddcc177c139","key":"` + key32 + `"}]}`))
	f.Add([]byte(`{"keys":[{"key_ID":"a","key":"` + strings.ReplaceAll(key32, "/", `\/`) + `"}],"x":{}}`))
	f.Add([]byte(`{"message":"no"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		_, key, err := one(keyservice.Answer{Status: 200, Body: given})
		if !bytes.Equal(given, make([]byte, len(given))) {
			t.Errorf("the answer is not erased: %q", given)
		}
		if err != nil && key.Len() > 0 && !key.IsZero() {
			t.Error("a key, and an error")
		}
		if r := keyservice.Refused(keyservice.Answer{Status: 503, Body: bytes.Clone(body)}); len(r.Error()) > 300 {
			t.Errorf("%q", r.Error())
		}
	})
}
