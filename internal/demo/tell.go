package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The layout of the narration, in columns.
const (
	lineWidth  = 79
	labelAt    = 4
	labelWidth = 21
	valueAt    = labelAt + labelWidth + 1
)

// The marks of a claim that held and of one that did not.
const (
	markHeld  = "✓"
	markShort = "✗"
)

// A teller writes the narration and remembers which claims fell short.
type teller struct {
	w      io.Writer
	colour bool
	act    string
	claims int
	short  []string
}

// title opens the narration.
func (t *teller) title(text string) { t.line(t.style("1", text)) }

// begin opens an act.
func (t *teller) begin(number int, name string) {
	t.act = fmt.Sprintf("act %d", number)
	head := fmt.Sprintf("%d  %s ", number, name)
	t.line("")
	t.line(t.style("1", head) + strings.Repeat("─", max(0, lineWidth-utf8.RuneCountInString(head))))
}

// say writes a sentence of prose.
func (t *teller) say(format string, args ...any) {
	for _, line := range wrap(fmt.Sprintf(format, args...), lineWidth-labelAt) {
		t.line(strings.Repeat(" ", labelAt) + line)
	}
}

// claim writes what was measured, marked by whether it is as it should be.
func (t *teller) claim(held bool, label, format string, args ...any) {
	t.claims++
	text := fmt.Sprintf(format, args...)
	if !held {
		t.short = append(t.short, fmt.Sprintf("%s, %s: %s", t.act, label, text))
		t.row(t.style("31;1", markShort), label, text)
		return
	}
	t.row(t.style("32", markHeld), label, text)
}

// fact writes what was measured where nothing is claimed.
func (t *teller) fact(label, format string, args ...any) {
	t.row(" ", label, fmt.Sprintf(format, args...))
}

// item writes a paragraph behind a mark.
func (t *teller) item(mark, text string) {
	for i, line := range wrap(text, lineWidth-labelAt) {
		if i > 0 {
			mark = " "
		}
		t.line("  " + mark + " " + line)
	}
}

func (t *teller) row(mark, label, text string) {
	lines := wrap(text, lineWidth-valueAt)
	gap := labelWidth - utf8.RuneCountInString(label)
	if gap < 0 { // too long a label has a line of its own
		t.line("  " + mark + " " + label)
		mark, label, gap = " ", "", labelWidth
	}
	for i, line := range lines {
		if i == 0 {
			t.line("  " + mark + " " + label + strings.Repeat(" ", gap+1) + line)
		} else {
			t.line(strings.Repeat(" ", valueAt) + line)
		}
	}
}

func (t *teller) line(s string) { fmt.Fprintln(t.w, strings.TrimRight(s, " ")) }

// style wraps s in a terminal's escape sequence, if this is a terminal.
func (t *teller) style(code, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// wrap breaks text at spaces into lines of at most width columns; a word that
// is longer has a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	var line string
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// grouped writes a count with its thousands apart.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes a count and its noun.
func count(n int, singular string) string {
	if n == 1 {
		return "1 " + singular
	}
	return grouped(n) + " " + singular + "s"
}

// Colourful reports whether f is a terminal whose owner has not asked for plain
// text (https://no-color.org).
func Colourful(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
