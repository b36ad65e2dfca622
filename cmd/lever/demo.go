package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/demo"
)

// newDemoCommand is lever demo. It exits with a status of its own, by which a
// demo in a guest tells the one outside how it ended.
func newDemoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show two routers securing an untrusted link, on this machine",
		Long: `Show two routers securing an untrusted link, on this machine.

Two agents, as processes in network namespaces of their own, read the example
inventory, agree keys over a veth link, and pass traffic while keys change and an
agent is killed. Each of five acts says what it measured. The exit status is 0
only if every claim held.

It needs root and a kernel with MACsec, or else user-mode Linux, which needs
neither; it installs nothing, and leaves nothing behind.`,
		Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			o.Stdout, o.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			o.Colour = o.Colour || demo.Colourful(os.Stdout)
			err := runDemo(cmd, o)
			// The narration has told of the first, and outside says the second.
			told := errors.Is(err, demo.ErrShort) || o.Inside && errors.Is(err, demo.ErrInterrupted)
			if err != nil && !told {
				fmt.Fprintln(o.Stderr, "lever demo:", err)
			}
			if code := demo.ExitCode(err); code != 0 {
				os.Exit(code)
			}
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Keep, "keep", false, "leave routers and agents running at the end; a guest until Ctrl-C")
	f.StringVar(&o.Pcap, "pcap", "", "write what was on the wire to `file`")
	f.BoolVar(&o.Inside, "inside", false, "run on this kernel, as the demo outside has chosen")
	f.StringVar(&o.Kernel, "kernel", "this kernel", "what to call this kernel")
	f.BoolVar(&o.Colour, "colour", false, "write for a terminal")
	for _, name := range []string{"inside", "kernel", "colour"} {
		_ = f.MarkHidden(name)
	}
	return cmd
}

func runDemo(cmd *cobra.Command, o demo.Options) error {
	var err error
	if o.Binary, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	signals := make(chan os.Signal, 2)
	// SIGPIPE too: `lever demo | head` must not leave namespaces behind.
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer signal.Stop(signals)
	o.Signals = signals
	return demo.Run(cmd.Context(), o)
}
