package demo

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNarration(t *testing.T) {
	var b strings.Builder
	tell := &teller{w: &b}
	tell.title("the title")
	tell.begin(3, "On the wire")
	tell.say("A sentence.")
	tell.claim(true, "cipher", "GCM-AES-XPN-256")
	tell.claim(true, "", "and more of it")
	tell.claim(false, "plain", "%d frames of something that ought not to be here, with a long and wordy explanation of it", 2)
	tell.fact("fra1-r1", "a fact")
	tell.claim(true, "a label that is wider than its column", "value")
	const want = `the title

3  On the wire ────────────────────────────────────────────────────────────────
    A sentence.
  ✓ cipher                GCM-AES-XPN-256
  ✓                       and more of it
  ✗ plain                 2 frames of something that ought not to be here, with
                          a long and wordy explanation of it
    fra1-r1               a fact
  ✓ a label that is wider than its column
                          value
`
	if b.String() != want {
		t.Errorf("narrated\n%s\nwant\n%s", b.String(), want)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 79 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if tell.claims != 4 || len(tell.short) != 1 || !strings.HasPrefix(tell.short[0], "act 3, plain: 2 frames") {
		t.Errorf("%d claims, short %q", tell.claims, tell.short)
	}
}

func TestColourIsForTerminals(t *testing.T) {
	var plain, coloured strings.Builder
	(&teller{w: &plain}).claim(true, "x", "y")
	(&teller{w: &coloured, colour: true}).claim(true, "x", "y")
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(coloured.String(), "\x1b[32m✓\x1b[0m") {
		t.Errorf("plain %q, coloured %q", plain.String(), coloured.String())
	}
}

func TestWrap(t *testing.T) {
	tests := []struct {
		text  string
		width int
		want  string
	}{
		{"", 10, ""},
		{"one", 10, "one"},
		{"one two three", 7, "one two|three"},
		{"one  two\nthree", 80, "one two three"},
		{"an-unbreakable-word and more", 5, "an-unbreakable-word|and|more"},
		{"a → b → c", 5, "a → b|→ c"},
	}
	for _, tt := range tests {
		if got := strings.Join(wrap(tt.text, tt.width), "|"); got != tt.want {
			t.Errorf("wrap(%q, %d) = %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestCounts(t *testing.T) {
	for n, want := range map[int]string{0: "0 frames", 1: "1 frame", 999: "999 frames", 1000: "1,000 frames", 1234567: "1,234,567 frames"} {
		if got := count(n, "frame"); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{{nil, 0}, {errors.New("x"), 1}, {errors.Join(ErrShort, errors.New("and more")), 3}, {ErrInterrupted, 130}} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("exit status %d for %v, want %d", got, tt.err, tt.want)
		}
	}
}
