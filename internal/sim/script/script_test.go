package script_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/lever-link/lever/internal/sim/script"
)

// A golden diary must not hide that a script is wrong: whoever rewrites it is told.
func TestMistakesFail(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"dance a", "no command"},
		{"run", "how long is missing"},
		{"run 5", "missing unit"},
		{"start nobody", "nobody is called"},
		{"member a colour=red", "mean nothing here"},
		{"member a priority=high", "is no number"},
		{"member a suite=rot13", "is no cipher suite"},
		{"peer p kind=parrot", "no kind"},
		{"cut a", "is not A>B"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			cmd, args, err := datadriven.ParseLine(tt.line)
			if err != nil {
				t.Fatal(err)
			}
			var failed string
			s := script.New(func(format string, args ...any) { failed += fmt.Sprintf(format, args...) }, nil)
			out := s.Run(&datadriven.TestData{Cmd: cmd, CmdArgs: args})
			if !strings.Contains(failed, tt.want) || !strings.Contains(out, "error: ") {
				t.Errorf("failed with %q, diary %q, want %q in the former", failed, out, tt.want)
			}
		})
	}
}
