package signed

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Marshal is the one spelling of v in JSON: no white space, fields in the order of
// the Go type, no needless escapes.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Unmarshal reads what Marshal writes, and nothing else: neither unknown fields
// nor other spellings, fields twice or in another order. Its errors are
// ErrMalformed and quote nothing.
func Unmarshal(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return malformed("it is not the JSON that is expected there")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed("something follows its JSON")
	}
	again, err := Marshal(v)
	if err != nil || !bytes.Equal(again, text) {
		return malformed("its JSON is not in its one spelling")
	}
	return nil
}
