package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
)

func newStatusCommand() *cobra.Command {
	var runDir, format string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is encrypted, with what, and what is wrong",
		Long: `Show each link of this node: its verdict and why, whether it is secured, with
which cipher, key epoch and key server, and every fault with its next step.

With -o json the answer is an object with node and links, one line for each
change with --watch.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			var show func(agent.Status) error
			switch format {
			case "json":
				enc := json.NewEncoder(out)
				if !watch {
					enc.SetIndent("", "  ")
				}
				show = func(st agent.Status) error { return enc.Encode(st) }
			case "table":
				show = func(st agent.Status) error { return printStatus(out, st) }
			default:
				return fmt.Errorf("-o %s: the formats are table and json", format)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			c := agent.NewClient(runDir)
			if !watch {
				st, err := c.Status(ctx)
				if err != nil {
					return err
				}
				return show(st)
			}
			err := c.Watch(ctx, func(st agent.Status) error {
				if format == "table" {
					fmt.Fprintf(out, "— %s —\n", time.Now().Format("15:04:05.000"))
				}
				return show(st)
			})
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				err = errors.New("the agent has stopped; the encrypted path stays")
			}
			return err
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", agent.DefaultRunDir, "the agent's run directory")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, with a new answer at every change")
	return cmd
}

func printStatus(out io.Writer, st agent.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LINK\tIFACE\tSTATE\tCIPHER\tEPOCH\tAN/KN\tKEY SERVER\tSINCE\tREKEYS")
	for _, l := range st.Links {
		cipher, assoc, server, since, rekeys := "-", "-", "-", "-", "-"
		if l.SecureInterface != "" {
			cipher, rekeys = l.Cipher, fmt.Sprint(l.Rekeys)
		}
		if l.AN != nil {
			assoc = fmt.Sprintf("%d/%d", *l.AN, l.KN)
		}
		if l.KeyServer != "" {
			server = keyServer(l)
		}
		if l.SecuredSince != nil {
			since = age(time.Since(*l.SecuredSince))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Interface, l.State, cipher, dash(l.Epoch), assoc, server, since, rekeys)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range st.Links {
		fmt.Fprintf(out, "\n%s: %s: %s\n", l.ID, l.Verdict, l.Reason)
		if l.SuspendedUntil != nil {
			fmt.Fprintf(out, "  suspended: this agent may be away until %s\n", l.SuspendedUntil.Format(time.TimeOnly))
		}
		for _, p := range l.Peers {
			if p.SuspendedUntil != nil {
				fmt.Fprintf(out, "  suspended: peer %s has announced to be away until %s\n", p.SCI, p.SuspendedUntil.Format(time.TimeOnly))
			}
		}
		for _, f := range l.Faults {
			fmt.Fprintf(out, "  %s %s: %s\n    next: %s\n", f.Severity, f.Code, f.Text, f.Next)
		}
	}
	return nil
}

// keyServer is which end it is. An SCI is wide: only where there are several
// other members does it tell anything that "far end" does not.
func keyServer(l agent.LinkStatus) string {
	switch {
	case l.KeyServer == l.LocalSCI:
		return "this end"
	case len(l.Peers) == 1 && l.Peers[0].SCI == l.KeyServer:
		return "far end"
	}
	return l.KeyServer
}

// age is a duration in the two units that matter, such as 5m12s or 3d4h.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
