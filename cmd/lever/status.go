package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/health"
)

func newStatusCommand() *cobra.Command {
	var runDir, format string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is encrypted, with what, and what is wrong",
		Long: `Show each link of this node: its verdict and why, whether it is secured, with
which cipher, key epoch and key server, and every fault with its next step.

What the agent says is compared with what the kernel has. Where they differ the
state has a mark, as in secured!, and a line says what differs. When no agent
answers, the kernel's side of the links that one has left is shown, and the exit
status is 1.

With -o json the answer is an object with node and links, one line for each
change with --watch; kernel of a link is the kernel's side.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			var show func(agent.Status) error
			switch format {
			case "json":
				show = func(st agent.Status) error { return printStatusJSON(out, st, !watch) }
			case "table":
				show = func(st agent.Status) error { return printStatus(out, st) }
			default:
				return fmt.Errorf("-o %s: the formats are table and json", format)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			c := agent.NewClient(runDir)
			if !watch {
				st, err := c.Look(ctx)
				if err != nil {
					return err
				}
				if err := show(st); err != nil {
					return err
				}
				if st.Unanswered != "" {
					return errors.New(st.Unanswered)
				}
				return nil
			}
			err := c.WatchLook(ctx, func(st agent.Status) error {
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

// printStatusJSON prints on one line, or on many for whoever reads it.
func printStatusJSON(out io.Writer, st agent.Status, indent bool) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(st)
}

func printStatus(out io.Writer, st agent.Status) error {
	if st.Unanswered != "" {
		fmt.Fprintln(out, "No agent answers. This is what the kernel has of the links that one has left:")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LINK\tIFACE\tSTATE\tCIPHER\tEPOCH\tAN/KN\tKEY SERVER\tSINCE\tREKEYS")
	for _, l := range st.Links {
		cipher, assoc, server, since, rekeys := "-", "-", "-", "-", "-"
		if k := l.Kernel; k != nil && l.State == agent.StateUnattended {
			l.Cipher, l.AN, l.KN = k.Cipher, k.AN, k.KeyNumber()
		}
		if l.SecureInterface != "" {
			cipher, rekeys = dash(l.Cipher), fmt.Sprint(l.Rekeys)
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Interface, stateMark(l), cipher, dash(l.Epoch), assoc, server, since, rekeys)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if st.Unseen != "" {
		fmt.Fprintf(out, "\nNot compared with the kernel: %s\n", st.Unseen)
	}
	for i, f := range st.Faults {
		if i == 0 {
			fmt.Fprintf(out, "\n%s:\n", st.Node)
		}
		printFault(out, f)
	}
	for _, l := range st.Links {
		fmt.Fprintf(out, "\n%s: %s: %s\n", l.ID, l.Verdict, l.Reason)
		if k := l.Kernel; k != nil {
			for _, d := range k.Differs {
				fmt.Fprintf(out, "  the kernel differs: %s\n", d)
			}
		}
		saidSo := slices.ContainsFunc(l.Faults, func(f health.Fault) bool { return strings.Contains(f.Text, l.TrafficDetail) })
		if l.Traffic != "" && l.State != agent.StateSecured && !saidSo {
			fmt.Fprintf(out, "  traffic is %s: %s\n", l.Traffic, l.TrafficDetail)
		}
		if l.SuspendedUntil != nil {
			fmt.Fprintf(out, "  suspended: this agent may be away until %s\n", l.SuspendedUntil.Format(time.TimeOnly))
		}
		for _, p := range l.Peers {
			if p.SuspendedUntil != nil {
				fmt.Fprintf(out, "  suspended: peer %s has announced to be away until %s\n", p.SCI, p.SuspendedUntil.Format(time.TimeOnly))
			}
		}
		for _, f := range l.Faults {
			printFault(out, f)
		}
	}
	return nil
}

func printFault(out io.Writer, f health.Fault) {
	fmt.Fprintf(out, "  %s %s: %s\n    next: %s\n", f.Severity, f.Code, f.Text, f.Next)
}

// stateMark is the state, marked where the kernel is not at one with it.
func stateMark(l agent.LinkStatus) string {
	if l.Kernel != nil && !l.Kernel.Agrees {
		return string(l.State) + "!"
	}
	return string(l.State)
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
