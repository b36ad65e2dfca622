package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Position is a place in an inventory file. Line and Column count from 1; Line
// is 0 when the whole file is meant, for instance because it cannot be read.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// String returns file:line:column, or the file alone when there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Error is one mistake in an inventory.
type Error struct {
	Position
	Msg string `json:"message"`

	cause error
}

// Error returns file:line:column: message.
func (e Error) Error() string { return e.Position.String() + ": " + e.Msg }

// Unwrap returns the operating system's error when a file could not be read.
func (e Error) Unwrap() error { return e.cause }

// Errors is every mistake of an inventory, sorted by file and position. It is
// the type of the errors that [Load] and [Parse] return.
type Errors []Error

// Error returns one line for each mistake.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors, for [errors.Is] and [errors.As].
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// Warning is something in an inventory that is allowed and that a person should
// look at.
type Warning struct {
	Position
	Link string `json:"link,omitempty"` // the id of the link it is about, or empty
	Msg  string `json:"message"`
}

// String returns file:line:column: message.
func (w Warning) String() string { return w.Position.String() + ": " + w.Msg }

// findings collects mistakes and warnings over all files of one run.
type findings struct {
	errs     Errors
	warnings []Warning
}

func (f *findings) errorf(at Position, format string, args ...any) {
	f.errs = append(f.errs, Error{Position: at, Msg: fmt.Sprintf(format, args...)})
}

func (f *findings) warnf(at Position, link, format string, args ...any) {
	f.warnings = append(f.warnings, Warning{Position: at, Link: link, Msg: fmt.Sprintf(format, args...)})
}

func (f *findings) sort() {
	slices.SortStableFunc(f.errs, func(a, b Error) int { return a.compare(b.Position) })
	slices.SortStableFunc(f.warnings, func(a, b Warning) int { return a.compare(b.Position) })
}
