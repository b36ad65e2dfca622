package keyservice

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/lever-link/lever/internal/secret"
)

// Read decodes an answer's JSON into v and erases the answer. Fields that v does not
// have are passed over: both protocols leave room for them. A field for a key should
// be a json.RawMessage, which can be erased, as a string cannot. Errors of package
// json may quote what they read, and are left out.
func Read(a Answer, v any) error {
	defer a.Erase()
	if err := json.Unmarshal(a.Body, v); err != nil {
		return Malformed("it is not the JSON that it must be")
	}
	return nil
}

// Refused makes the Refusal of an answer whose status is not 200, and erases the
// answer. Of its body what is shown is a message in JSON, as ETSI GS QKD 014 has it.
// An answer with one of the statuses that unknown lists says that there is no such
// key.
func Refused(a Answer, unknown ...int) *Refusal {
	defer a.Erase()
	var body struct{ Message, Error, Reason json.RawMessage }
	r := &Refusal{Status: a.Status, Unknown: slices.Contains(unknown, a.Status)}
	if json.Unmarshal(a.Body, &body) == nil {
		for _, field := range []json.RawMessage{body.Message, body.Error, body.Reason} {
			var text string
			if json.Unmarshal(field, &text) == nil && text != "" {
				r.Detail = Quote(text)
				break
			}
		}
	}
	if a.Status == http.StatusOK {
		r.Detail = "it says that it has answered, and has not"
	}
	return r
}

// Base64Key is the key that a JSON string has in base64 (RFC 4648 section 4), and
// erases the string.
func Base64Key(field json.RawMessage) (secret.Key, error) {
	text, err := plain(field)
	if err != nil {
		return secret.Key{}, err
	}
	defer clear(text)
	key := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(key, text)
	if err != nil {
		clear(key)
		return secret.Key{}, Malformed("the key is not base64")
	}
	return secret.New(key[:n:n]), nil
}

// HexKey is the key that a JSON string has in hexadecimal digits, and erases the
// string.
func HexKey(field json.RawMessage) (secret.Key, error) {
	text, err := plain(field)
	if err != nil {
		return secret.Key{}, err
	}
	defer clear(text)
	key := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(key, text); err != nil {
		clear(key)
		return secret.Key{}, Malformed("the key is not hexadecimal")
	}
	return secret.New(key), nil
}

// plain is what is between the quotes of a JSON string, and erases the string. Of the
// escapes it knows the one that is usual in base64: a solidus may have a backslash.
func plain(field json.RawMessage) ([]byte, error) {
	defer clear(field)
	field = bytes.TrimSpace(field)
	if len(field) < 2 || field[0] != '"' {
		return nil, Malformed("there is no key in it")
	}
	text := make([]byte, 0, len(field))
	inside := field[1 : len(field)-1]
	for i := 0; i < len(inside); i++ {
		if inside[i] == '\\' && i+1 < len(inside) && inside[i+1] == '/' {
			i++
		}
		text = append(text, inside[i])
	}
	// Base64 and hexadecimal decoders pass over line ends, which are escaped here.
	return text, nil
}
