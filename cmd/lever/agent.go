package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
)

func newAgentCommand() *cobra.Command {
	var o agent.Options
	cmd := &cobra.Command{
		Use:   "agent --inventory FILE|DIR --node NODE",
		Short: "Keep this node's links encrypted",
		Long: `Keep this node's links encrypted, as the inventory demands.

The agent closes the fence on each link that leaves physical control, makes its
MACsec device, takes keys from both channels, agrees with the far end by MKA, and
only then lets traffic flow. When it stops, or is killed, the encrypted path
stays: start it again and it goes on without losing a frame. To remove a link's
encryption, use lever down.

It needs CAP_NET_ADMIN and CAP_NET_RAW, and logs to standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			return agent.Run(ctx, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Inventory, "inventory", "", "inventory file or directory")
	f.StringVar(&o.Node, "node", "", "the inventory's name of this node")
	f.StringVar(&o.RunDir, "run-dir", agent.DefaultRunDir, "directory on a tmpfs: control socket and what a restart resumes from")
	f.StringVar(&o.StateDir, "state-dir", agent.DefaultStateDir, "directory on disk: which epochs must never come back")
	_ = cmd.MarkFlagRequired("inventory")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}
