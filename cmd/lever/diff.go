package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/lever-link/lever/inventory"
)

// diffReport is what lever check --diff -o json prints.
type diffReport struct {
	Changes  []linkChange        `json:"changes"`
	Warnings []inventory.Warning `json:"warnings"` // of the new inventory
	Errors   inventory.Errors    `json:"errors"`   // of either
}

type linkChange struct {
	Link   string             `json:"link"`
	Change string             `json:"change"` // added, removed, changed
	Before *inventory.Verdict `json:"before,omitempty"`
	After  *inventory.Verdict `json:"after,omitempty"`
	Fields []string           `json:"fields"`
	Ends   []endChange        `json:"ends"`
}

type endChange struct {
	Node      string                  `json:"node"`
	Interface string                  `json:"interface,omitempty"`
	Was       string                  `json:"interface_before,omitempty"` // if another
	Session   inventory.SessionChange `json:"session"`
	Fence     inventory.FenceChange   `json:"fence"`
	Heir      string                  `json:"heir,omitempty"` // the link that has the interface now
	Does      string                  `json:"does"`           // the same in words
}

// compare reads two inventories and says what the agents do when new takes the
// place of running.
func compare(newPath, runningPath string) (diffReport, error) {
	report := diffReport{Changes: []linkChange{}, Warnings: []inventory.Warning{}, Errors: inventory.Errors{}}
	var read [2]*inventory.Inventory
	for i, path := range []string{runningPath, newPath} {
		inv, err := inventory.Load(path)
		if errs, ok := errors.AsType[inventory.Errors](err); ok {
			report.Errors = append(report.Errors, errs...)
		} else if err != nil {
			return report, err
		}
		read[i] = inv
	}
	if len(report.Errors) > 0 {
		return report, report.Errors
	}
	report.Warnings = append(report.Warnings, read[1].Warnings...)
	for _, c := range inventory.Diff(read[0], read[1]) {
		l := linkChange{Link: c.Link, Change: "changed", Before: c.Before, After: c.After, Fields: append([]string{}, c.Fields...)}
		switch {
		case c.Before == nil:
			l.Change = "added"
		case c.After == nil:
			l.Change = "removed"
		}
		for i := range c.Ends {
			e := &c.Ends[i]
			end := endChange{Node: e.Node, Session: e.Session, Fence: e.Fence, Heir: e.Heir, Does: e.Words()}
			if e.After != nil {
				end.Interface = e.After.Local.Interface
			}
			if e.Before != nil && e.Before.Local.Interface != end.Interface {
				end.Was = e.Before.Local.Interface
			}
			l.Ends = append(l.Ends, end)
		}
		report.Changes = append(report.Changes, l)
	}
	return report, nil
}

// writeTable prints a line for each link and for each of the ways in which its
// ends differ.
func (r diffReport) writeTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Changes) > 0 {
		fmt.Fprintln(w, "LINK\tCHANGE\tVERDICT\tFIELDS\tNODES\tWHAT THE AGENTS DO")
	} else if len(r.Errors) == 0 {
		fmt.Fprintln(w, "nothing changes")
	}
	for _, c := range r.Changes {
		verdict := ""
		switch {
		case c.Before == nil:
			verdict = c.After.Kind.String()
		case c.After == nil || c.After.Kind == c.Before.Kind:
			verdict = c.Before.Kind.String()
		default:
			verdict = fmt.Sprintf("%s -> %s", c.Before.Kind, c.After.Kind)
		}
		fields := strings.Join(c.Fields, ",")
		if fields == "" {
			fields = "-"
		}
		for rest := c.Ends; len(rest) > 0; {
			var nodes []string
			var others []endChange
			for _, e := range rest {
				if e.Does == rest[0].Does {
					nodes = append(nodes, e.Node)
				} else {
					others = append(others, e)
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Link, c.Change, verdict, fields, strings.Join(nodes, ","), rest[0].Does)
			rest = others
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("lever check: printing the changes: %w", err)
	}
	return writeWarnings(out, r.Warnings)
}

func (r diffReport) writeJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("lever check: printing the changes: %w", err)
	}
	return nil
}
