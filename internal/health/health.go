// Package health declares every fault that Lever can report: its code, its
// severity, what it means and what to do next (promise 5: always explained).
//
// Status, metrics, logs and documentation read the same table, so a fault has
// one wording everywhere. The table, the instances raised from it and the Set
// of those that hold for a link belong here. Deciding that something is wrong
// does not: that is for the package that sees it. There is no I/O and no clock;
// time is passed in.
package health

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity says how soon a human must look.
type Severity string

// The severities, mildest first.
const (
	// Info is a standing fact that an auditor wants to see; nothing is broken.
	Info Severity = "info"
	// Warning is a fault that traffic does not feel yet.
	Warning Severity = "warning"
	// Critical is a link that carries no traffic, or that is not protected as
	// its verdict says.
	Critical Severity = "critical"
)

func (s Severity) rank() int {
	switch s {
	case Critical:
		return 0
	case Warning:
		return 1
	case Info:
		return 2
	}
	return 3
}

// Code names a declared fault. Codes are an interface: alerts match on them, so
// one is never renamed or reused.
type Code string

// Promise is one of the five promises of the design that a fault puts at risk
// or explains.
type Promise uint8

// The promises, in their order.
const (
	NeverPlain Promise = iota + 1
	NeverSameNonce
	NeverOneKeyHolder
	NeverAnOutage
	AlwaysExplained
)

// String is the promise as the design words it.
func (p Promise) String() string {
	switch p {
	case NeverPlain:
		return "never plain"
	case NeverSameNonce:
		return "never the same nonce twice"
	case NeverOneKeyHolder:
		return "never one key holder"
	case NeverAnOutage:
		return "never an outage of our making"
	case AlwaysExplained:
		return "always explained"
	}
	return fmt.Sprintf("promise %d", uint8(p))
}

// Declared is one row of the table. Text and Next are templates whose {name}
// placeholders Raise fills in.
type Declared struct {
	Code     Code
	Severity Severity
	Promise  Promise
	Text     string
	Next     string
	// Subject names the placeholders that tell two instances of one code on one
	// link apart, e.g. the file. Empty: at most one instance a link.
	Subject []string
}

// Placeholders returns the names that Text and Next use, sorted, each once.
func (d Declared) Placeholders() []string {
	var names []string
	expand(d.Text+d.Next, func(name string) string {
		names = append(names, name)
		return ""
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Fault is one raised instance, as status and JSON show it.
type Fault struct {
	Code     Code      `json:"code"`
	Severity Severity  `json:"severity"`
	Text     string    `json:"text"`
	Next     string    `json:"next"`
	Since    time.Time `json:"since"`

	subject string
}

// String is the fault on one line, for logs and terminals.
func (f Fault) String() string {
	return fmt.Sprintf("%s (%s): %s; next: %s", f.Code, f.Severity, f.Text, f.Next)
}

// Raise makes an instance of a declared fault. args are name, value pairs for
// its placeholders, as in log/slog; a value is formatted with %v. A name that
// was not given reads "(unknown)" in the text, and a code that was not declared
// still yields a critical fault that shows what it was given: a report about
// something broken must not itself break.
func Raise(code Code, since time.Time, args ...any) Fault {
	d, ok := Lookup(code)
	if !ok {
		return Fault{
			Code: code, Severity: Critical, Since: since,
			Text: fmt.Sprintf("undeclared fault %q %v", string(code), args),
			Next: "report this to the Lever project: every fault should be declared",
		}
	}
	value := func(name string) string {
		for i := 0; i+1 < len(args); i += 2 {
			if args[i] == name {
				return fmt.Sprint(args[i+1])
			}
		}
		return "(unknown)"
	}
	f := Fault{
		Code: code, Severity: d.Severity, Since: since,
		Text: expand(d.Text, value), Next: expand(d.Next, value),
	}
	for _, name := range d.Subject {
		f.subject += value(name) + "\x00"
	}
	return f
}

// expand replaces each {name} by value(name).
func expand(template string, value func(string) string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(template, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			b.WriteString("{" + rest)
			return b.String()
		}
		b.WriteString(value(name))
		template = after
	}
}

// Lookup finds a declared fault by its code.
func Lookup(code Code) (Declared, bool) {
	for _, d := range table {
		if d.Code == code {
			return d, true
		}
	}
	return Declared{}, false
}

// All returns the whole table, in the order of declaration.
func All() []Declared {
	all := slices.Clone(table)
	for i := range all {
		all[i].Subject = slices.Clone(all[i].Subject)
	}
	return all
}
