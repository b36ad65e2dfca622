package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/secret"
)

func TestNoFormattingPathPrintsTheKey(t *testing.T) {
	raw := bytes.Repeat([]byte{0xa5, 0x5a}, 16)
	k := secret.Clone(raw)
	type holder struct {
		K secret.Key
		P *secret.Key
		M map[string]secret.Key
		u secret.Key
	}
	h := holder{k, &k, map[string]secret.Key{"k": k}, k}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%p", "%T"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", &k)
		fmt.Fprintf(&out, verb+"\n", h)
		fmt.Fprintf(&out, verb+"\n", []secret.Key{k})
	}
	j, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", k, "holder", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", k, "holder", h)
	text := strings.ToLower(out.String())
	for _, leak := range []string{"a55a", "a5 5a", "165 90", "0xa5", "pvqlw", "245 132", "\xa5"} {
		if strings.Contains(text, leak) {
			t.Errorf("a formatting path printed %q:\n%s", leak, text)
		}
	}
}

func TestEraseEmptiesEveryCopy(t *testing.T) {
	k := secret.New([]byte{1, 2, 3})
	c := k
	if !k.Equal(c) || k.IsZero() {
		t.Fatal("a copy must equal its original")
	}
	k.Erase()
	if !c.IsZero() || c.Len() != 3 {
		t.Fatalf("copy after Erase: %v", c.Bytes())
	}
}
