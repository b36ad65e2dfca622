package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/audit"
	"github.com/lever-link/lever/inventory"
)

// exitUnread is the exit status of an audit that could not look: it says neither
// that the links are closed nor that they are not.
const exitUnread = 2

func newAuditCommand() *cobra.Command {
	var path, node, format string
	unread := func(err error) error { return &exitError{exitUnread, err} }
	cmd := &cobra.Command{
		Use:   "audit --inventory FILE|DIR --node NODE",
		Short: "Prove from the kernel alone that no link could leak",
		Long: `Compare the kernel with the inventory, and print the evidence for each link that
must be encrypted: parent interface, fence, MACsec device, its configuration and
its keys, and what else could send past them. No agent is asked and none need
run, and nothing is changed. No privilege is needed before Linux 6.6; from then on
it takes CAP_NET_ADMIN to see programs of tcx, which come before the fence. Run it
in the network namespace that the links are in.

The exit status is 0 when no link could carry plain frames, or frames that are
less protected than the inventory demands; 1 when one could; 2 when something
could not be read, and so nobody knows. Warnings are about what is not as the
agent leaves it and lets nothing out; they change no exit status.`,
		Example: `  lever audit --inventory /etc/lever/net.yaml --node fra1-r1
  lever audit --inventory /etc/lever/net.yaml --node fra1-r1 -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return unread(err)
			}
			return nil
		},
		// In place of the root's, whose error would be a link that could leak.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFlags(cmd); err != nil {
				return unread(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := writeAuditTable
			switch format {
			case "table":
			case "json":
				write = writeAuditJSON
			default:
				return unread(fmt.Errorf("lever audit: -o takes table or json; found %q", format))
			}
			if path == "" || node == "" {
				return unread(errors.New("lever audit: --inventory and --node say what the links of this node must be: give both"))
			}
			inv, err := inventory.Load(path)
			if err != nil {
				return unread(err)
			}
			report, err := audit.Node(inv, node, audit.Linux(), time.Now())
			if err != nil {
				return unread(err)
			}
			if err := write(cmd.OutOrStdout(), report); err != nil {
				return unread(fmt.Errorf("lever audit: print the report: %w", err))
			}
			return auditError(report)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unread(err) })
	f := cmd.Flags()
	f.StringVar(&path, "inventory", "", "inventory file or directory")
	f.StringVar(&node, "node", "", "the inventory's name of this node")
	f.StringVarP(&format, "output", "o", "table", "how to print: table or json")
	return cmd
}

// auditError is the exit status of a report, and what it comes from in a line.
func auditError(r *audit.Report) error {
	concerns := func(result audit.Result) string {
		var links []string
		for i := range r.Links {
			if l := &r.Links[i]; l.Result == result {
				var names []string
				for _, c := range l.With(result) {
					names = append(names, c.Name)
				}
				links = append(links, fmt.Sprintf("%s (%s)", l.ID, strings.Join(names, ", ")))
			}
		}
		return strings.Join(links, ", ")
	}
	switch r.Result {
	case audit.Fail:
		return &exitError{1, fmt.Errorf("lever audit: %s could carry frames in plain, or less protected than the inventory demands", concerns(audit.Fail))}
	case audit.Unknown:
		return &exitError{exitUnread, fmt.Errorf("lever audit: not everything could be read: %s", concerns(audit.Unknown))}
	default:
		return nil
	}
}

func writeAuditTable(out io.Writer, r *audit.Report) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LINK\tIFACE\tDEVICE\tVERDICT\tAUDIT")
	for _, l := range r.Links {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.ID, l.Interface, dash(l.SecureInterface), l.Kind, l.Result)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range r.Links {
		fmt.Fprintf(&b, "\n%s: %s: %s\n", l.ID, l.Kind, l.Reason)
		for _, c := range l.Checks {
			fmt.Fprintf(&b, "  %-7s  %-14s  %s\n", strings.ToUpper(string(c.Result)), c.Name, c.Found)
			if c.Next != "" {
				fmt.Fprintf(&b, "           next: %s\n", c.Next)
			}
		}
	}
	_, err := out.Write(b.Bytes())
	return err
}

func writeAuditJSON(out io.Writer, r *audit.Report) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
