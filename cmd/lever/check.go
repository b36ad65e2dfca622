package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/lever-link/lever/inventory"
	"github.com/spf13/cobra"
)

func newCheckCommand() *cobra.Command {
	var format, running string
	cmd := &cobra.Command{
		Use:   "check FILE|DIR...",
		Short: "Say which links are encrypted, and why",
		Long: `Reads inventories, each a file or a directory of *.yaml files, and says for each
link whether it is encrypted (its way leaves physical control, or nobody knows),
inside (left alone) or exempt (left in the clear by an override), and why.

Every mistake is printed to standard error as FILE:LINE:COLUMN: MESSAGE, and the
exit status is then 1. Warnings change no exit status.

With --diff it says instead, for each link, what the agents at its ends would do
when the one inventory named takes the place of the one that is RUNNING. An agent
that reloads acts on the same comparison.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("lever check: -o takes table or json; found %q", format)
			}
			var report interface {
				writeTable(out io.Writer) error
				writeJSON(out io.Writer) error
			}
			var err error
			switch {
			case !cmd.Flags().Changed("diff"):
				report, err = check(args)
			case len(args) != 1:
				return fmt.Errorf("lever check: --diff compares one inventory with the running one; found %d", len(args))
			default:
				report, err = compare(args[0], running)
			}
			write := report.writeTable
			if format == "json" {
				write = report.writeJSON
			}
			return errors.Join(write(cmd.OutOrStdout()), err)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "how to print: table or json")
	cmd.Flags().StringVar(&running, "diff", "", "the inventory (file or directory) that the agents run by now")
	return cmd
}

// checkReport is what lever check -o json prints.
type checkReport struct {
	Links    []checkedLink       `json:"links"`
	Warnings []inventory.Warning `json:"warnings"`
	Errors   inventory.Errors    `json:"errors"`
}

type checkedLink struct {
	Inventory string   `json:"inventory"` // as on the command line
	ID        string   `json:"id"`
	Ends      []string `json:"ends"` // a and z, or the members
	inventory.Verdict
	Cipher *inventory.Cipher `json:"cipher,omitempty"` // of encrypted links
}

// check reads each inventory by itself. The report has what could be read, the
// error all mistakes.
func check(paths []string) (checkReport, error) {
	// Never null in JSON: programs go through these lists.
	report := checkReport{Links: []checkedLink{}, Warnings: []inventory.Warning{}, Errors: inventory.Errors{}}
	for _, path := range paths {
		inv, err := inventory.Load(path)
		if errs, ok := errors.AsType[inventory.Errors](err); ok {
			report.Errors = append(report.Errors, errs...)
			continue
		} else if err != nil {
			return report, err
		}
		for _, l := range inv.Links {
			c := checkedLink{Inventory: path, ID: l.ID, Verdict: l.Verdict}
			for _, e := range l.Ends {
				c.Ends = append(c.Ends, e.String())
			}
			if l.Verdict.Kind == inventory.Encrypt {
				c.Cipher = &l.Cipher
			}
			report.Links = append(report.Links, c)
		}
		report.Warnings = append(report.Warnings, inv.Warnings...)
	}
	if len(report.Errors) > 0 {
		return report, report.Errors
	}
	return report, nil
}

// writeTable prints the links, under the name of their inventory when there are
// several, and the warnings after them.
func (r checkReport) writeTable(out io.Writer) error {
	var several bool
	for _, l := range r.Links {
		several = several || l.Inventory != r.Links[0].Inventory
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	last := ""
	for i, l := range r.Links {
		if i == 0 || l.Inventory != last {
			if several {
				fmt.Fprintf(w, "%s:\n", l.Inventory)
			}
			fmt.Fprintln(w, "LINK\tA\tZ\tVERDICT\tCIPHER\tREASON")
		}
		last = l.Inventory
		cipher := "-"
		if l.Cipher != nil {
			cipher = l.Cipher.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n",
			l.ID, l.Ends[0], strings.Join(l.Ends[1:], ","), l.Kind, cipher, l.Reason)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("lever check: printing the links: %w", err)
	}
	return writeWarnings(out, r.Warnings)
}

func writeWarnings(out io.Writer, warnings []inventory.Warning) error {
	for _, warning := range warnings {
		if _, err := fmt.Fprintf(out, "warning: %s\n", warning); err != nil {
			return fmt.Errorf("lever check: printing the warnings: %w", err)
		}
	}
	return nil
}

func (r checkReport) writeJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("lever check: printing the report: %w", err)
	}
	return nil
}
