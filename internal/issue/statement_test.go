package issue_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/internal/signed"
)

// Of many that write a statement to one file at the same time, one has written it.
func TestWriteStatementAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "age.override")
	at := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	var errs [8]error
	var wg sync.WaitGroup
	for i := range errs {
		s, err := signed.NewOverride(signed.Override{All: true, Reason: "ticket", Issued: at, Expires: at.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { errs[i] = issue.WriteStatement(path, s) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !strings.Contains(err.Error(), "it is there already"):
			t.Error(err)
		}
	}
	if info, err := os.Stat(path); won != 1 || err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%d have written it: %v, %v", won, info, err)
	}
}
