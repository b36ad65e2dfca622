package inventory

import (
	"errors"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzParse checks that no input panics, that every error has a position in the
// file, and that schema.json accepts whatever the decoder accepts.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"testdata/rejected.txt", "testdata/accepted.txt"} {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, a := range archive.Files {
			f.Add(a.Data)
		}
	}
	s := compileSchema(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := buildCase(data)
		if err != nil {
			errs, ok := errors.AsType[Errors](err)
			if !ok || inv != nil {
				t.Fatalf("an error of type %T, inventory %v", err, inv)
			}
			for i, e := range errs {
				if e.File == "" || e.Line < 1 || e.Column < 1 || e.Msg == "" {
					t.Errorf("an error without position or text: %#v", e)
				}
				if i > 0 && errs[i-1].compare(e.Position) > 0 {
					t.Errorf("errors out of order: %v", errs)
				}
			}
			return
		}
		if err := validate(s, data); err != nil {
			t.Errorf("the decoder accepts what the schema refuses: %v", err)
		}
		for _, l := range inv.Links {
			if l.Verdict.Reason == "" {
				t.Errorf("link %s has a verdict without a reason", l.ID)
			}
		}
	})
}
