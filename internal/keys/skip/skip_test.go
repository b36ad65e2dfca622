package skip

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
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
	s, err := newService(keyservice.Options{Node: node, URL: "https://provider.example", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTranscript writes down what is said of keys and of faults; the keys in it are
// test data.
func TestTranscript(t *testing.T) {
	var said kmetest.Transcript
	network := kmetest.NewNetwork()
	k1, k2 := network.KME("fra1-r1"), network.KME("ams1-r2")
	r1, r2 := newTest(t, "fra1-r1", said.Of(k1)), newTest(t, "ams1-r2", said.Of(k2))
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
	if !key.Equal(got) || key.Len() != 32 || key.IsZero() {
		t.Errorf("%q is another key at each end", id)
	}
	said.Note("It is given once.")
	_, err = r2.Get(ctx, "fra1-r1", id)
	note(err)
	said.Note("There is no key in store.")
	k1.Set(kmetest.Faults{Empty: true})
	_, _, err = r1.New(ctx, "ams1-r2")
	note(err)
	said.Note("The providers are not connected.")
	k1.Set(kmetest.Faults{Unsynchronised: true})
	id, _, err = r1.New(ctx, "ams1-r2")
	note(err)
	_, err = r2.Get(ctx, "fra1-r1", id)
	note(err)
	said.Note("A far end that the provider has no keys with.")
	_, _, err = r1.New(ctx, "elsewhere")
	note(err)
	said.Note("A provider that has another name.")
	k1.Set(kmetest.Faults{Local: "KP_1"})
	_, _, err = newTest(t, "fra1-r1", said.Of(k1)).New(ctx, "ams1-r2")
	note(err)
	said.Note("Random octets.")
	random, err := r2.Entropy(ctx, 256)
	note(err)
	if random.Len() != 32 || random.IsZero() {
		t.Errorf("%d random octets", random.Len())
	}
	_, err = r2.Entropy(ctx, 512)
	note(err)

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

// answering is a provider that has one answer to everything but capabilities.
type answering struct {
	status       int
	body         string
	capabilities string // empty: those of one that can all
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == "/capabilities" {
		a.status, a.body = 200, a.capabilities
		if a.body == "" {
			a.body = `{"entropy":true,"key":true,"algorithm":"test","localSystemID":"r1","remoteSystemID":["r2"]}`
		}
	}
	return &http.Response{StatusCode: a.status, ContentLength: -1, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

var key32 = hex.EncodeToString(bytes.Repeat([]byte{0xfb, 0xef}, 16))

// TestAnswers goes through all answers that are no key, to both requests.
func TestAnswers(t *testing.T) {
	const id = "1726e9AE76234FB1dd1283d4dca1911e"
	good := fmt.Sprintf(`{"keyId":%q,"key":%q}`, id, key32)
	for _, tt := range []struct {
		name    string
		answer  answering
		err     string // part of it; empty: there is a key
		unknown bool   // with an id
	}{
		{"key", answering{200, good, ""}, "", false},
		{"capital digits", answering{200, strings.ToUpper(good[len(`{"keyId":"`)+len(id):]), ""}, "it is not the JSON that it must be", false},
		{"more fields", answering{200, strings.Replace(good, "{", `{"later":{},`, 1), ""}, "", false},
		{"no restriction", answering{200, good, `{"key":true}`}, "", false},
		{"pattern", answering{200, good, `{"key":true,"localSystemID":"r1","remoteSystemID":["x","*2"]}`}, "", false},
		{"400", answering{400, ``, ""}, "status 400 (Bad Request)", true},
		{"401", answering{401, `{"message":"who?"}`, ""}, "status 401 (Unauthorized): who?", false},
		{"404", answering{404, `not here`, ""}, "status 404 (Not Found)", true},
		{"405", answering{405, ``, ""}, "status 405 (Method Not Allowed)", false},
		{"500", answering{500, `{"reason":"cannot erase it"}`, ""}, "status 500 (Internal Server Error): cannot erase it", false},
		{"503", answering{503, ``, ""}, "status 503 (Service Unavailable)", false},
		{"201", answering{201, good, ""}, "status 201 (Created)", false},
		{"no body", answering{200, ``, ""}, "it is not the JSON that it must be", false},
		{"two values", answering{200, good + good, ""}, "it is not the JSON that it must be", false},
		{"no key", answering{200, `{"keyId":"` + id + `"}`, ""}, "there is no key in it", false},
		{"null", answering{200, `{"keyId":"` + id + `","key":null}`, ""}, "there is no key in it", false},
		{"a key in base64", answering{200, `{"keyId":"` + id + `","key":"OeX2otJUWR35n+/LuwwmW/dDBTxQFE6Ur0WlqmrFa1c="}`, ""}, "the key is not hexadecimal", false},
		{"half a digit", answering{200, `{"keyId":"` + id + `","key":"` + key32[1:] + `"}`, ""}, "the key is not hexadecimal", false},
		{"gives no keys", answering{200, good, `{"entropy":true,"key":false}`}, "it gives no keys", false},
		{"another far end", answering{200, good, `{"key":true,"remoteSystemID":["r3","[","r"]}`}, `it has no keys with "r2"`, false},
		{"another name", answering{200, good, `{"key":true,"localSystemID":"r9\n"}`}, `it is the provider "r9"`, false},
		{"capabilities that are none", answering{200, good, `[]`}, "it is not the JSON that it must be", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, call := range []string{"key", "key with id"} {
				s := newTest(t, "r1", tt.answer)
				var err error
				var octets int
				if call == "key" {
					got, key, e := s.New(context.Background(), "r2")
					err, octets = e, key.Len()
					if err == nil && got != id {
						t.Errorf("the id is %q", got)
					}
				} else {
					key, e := s.Get(context.Background(), "r2", strings.ToLower(id))
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
				if call == "key with id" && refused.Unknown != tt.unknown {
					t.Errorf("%s: unknown is %t", call, refused.Unknown)
				}
				if octets > 0 || strings.Contains(err.Error(), key32[:16]) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %q", call, err)
				}
			}
		})
	}
}

func TestAnotherID(t *testing.T) {
	s := newTest(t, "r1", answering{200, fmt.Sprintf(`{"keyId":"0a","key":%q}`, key32), ""})
	if _, err := s.Get(context.Background(), "r2", "0b"); err == nil || !strings.Contains(err.Error(), "the key of another id") {
		t.Errorf("another id: %v", err)
	}
}

// TestEntropyAnswers goes through answers that have less in them than was asked for.
func TestEntropyAnswers(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{fmt.Sprintf(`{"randomStr":%q,"minentropy":256}`, strings.ToUpper(key32)), ""},
		{fmt.Sprintf(`{"randomStr":%q,"minentropy":128}`, key32), "less entropy"},
		{fmt.Sprintf(`{"randomStr":%q,"minentropy":256}`, key32[2:]), "less entropy"},
		{`{"minentropy":256}`, "there is no key in it"},
		{`{"randomStr":"x","minentropy":256}`, "not hexadecimal"},
		{`{`, "not the JSON"},
	} {
		got, err := newTest(t, "r1", answering{200, tt.body, ""}).Entropy(context.Background(), 256)
		if tt.want == "" {
			if err != nil || got.Len() != 32 {
				t.Errorf("%s: %d octets, %v", tt.body, got.Len(), err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.body, err, tt.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"keyId":"1726e9ae76234fb1dd1283d4dca1911e","key":"` + key32 + `"}`))
	f.Add([]byte(`{"key":true,"localSystemID":"r1","remoteSystemID":["r*"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newTest(t, "r1", answering{200, string(body), ""})
		id, key, err := s.key(context.Background(), "/key", "")
		if err != nil && key.Len() > 0 && !key.IsZero() {
			t.Error("a key, and an error")
		}
		if err == nil {
			var a struct{ KeyID, Key string }
			if json.Unmarshal(body, &a) != nil || a.KeyID != id || !strings.EqualFold(hex.EncodeToString(key.Bytes()), a.Key) {
				t.Errorf("%q was read as %q", body, id)
			}
		}
		_ = newTest(t, "r1", answering{200, "", string(body)}).check(context.Background(), "r2")
	})
}
