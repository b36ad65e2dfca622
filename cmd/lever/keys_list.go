package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/issue"
)

func newKeysListCommand() *cobra.Command {
	var t keysTarget
	var output string
	cmd := &cobra.Command{
		Use:   "list --channel a|b (--inventory FILE | --dir DIR) [-o table|json] [LINK…]",
		Short: "Show what a channel holds, without showing material",
		Long: `Show what a channel holds for each link, and what is wrong with it. Material is
not shown; its fingerprint tells whether two ends have the same: compare it for
one channel, link and epoch between them. Of bundles, which are sealed, only the
issuer can say it (--issuer); without its directory there is a line for each node
and epoch, as the tree's indexes have them.`,
		RunE: func(cmd *cobra.Command, words []string) (err error) {
			t.options.ReadOnly = true
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: it is table or json", output)
			}
			channel, err := t.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, channel.Close()) }()
			links, err := t.links(words)
			if err != nil {
				return err
			}
			rows, err := channel.List(cmd.Context(), links)
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(rows)
			}
			return printKeys(cmd.OutOrStdout(), rows)
		},
	}
	t.flags(cmd, "dir")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`format`: table or json")
	return cmd
}

func printKeys(out io.Writer, rows []issue.Row) error {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LINK\tEPOCH\tMODE\tMODIFIED\tFINGERPRINT\tFILE\tSTATE")
	for _, r := range rows {
		modified := "-"
		if !r.Modified.IsZero() {
			modified = r.Modified.Format(time.RFC3339)
		}
		state := r.State
		if r.Detail != "" {
			state += ": " + r.Detail
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(r.Link), dash(r.Epoch), dash(r.Mode), modified, dash(r.Fingerprint), r.File, state)
	}
	return table.Flush()
}

func newKeysVerifyCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "verify --channel a|b (--inventory FILE | --dir DIR)",
		Short: "Hold what a channel delivers to what the agents will demand of it",
		Long: `Hold everything that a channel delivers to what the agents will demand of it:
signatures, digests, addressees and dates of bundles; form, binding and dates of
values in etcd; form and permissions of key files. It exits with 1 when something
would be refused, or when bundles of a node or a link of the inventory are missing.
For bundles the public keys of the inventory are enough.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			t.options.ReadOnly = true
			channel, err := t.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, channel.Close()) }()
			looked, problems, err := channel.Verify(cmd.Context())
			for _, p := range problems {
				fmt.Fprintln(cmd.OutOrStdout(), p)
			}
			if err != nil {
				return err
			}
			if looked == 0 {
				return fmt.Errorf("channel %s has nothing to look at: issue on it first, or name the directory where it is", t.side)
			}
			if len(problems) > 0 {
				return fmt.Errorf("%d of what channel %s delivers would be refused or is missing (of %d looked at)", len(problems), t.side, looked)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "channel %s: %d looked at, nothing wrong\n", t.side, looked)
			return err
		},
	}
	t.flags(cmd, "dir")
	return cmd
}
