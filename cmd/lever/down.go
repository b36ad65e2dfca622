package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
)

func newDownCommand() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:   "down [LINK…]",
		Short: "Remove links' encryption: device, keys and, last, the fence",
		Long: `Remove the MACsec devices and then the fences of the links named, or of all that
an agent has set up here. From then on plain frames may pass. It works with and
without a running agent; a running one leaves the links down until it is
restarted.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := agent.NewClient(runDir).Down(cmd.Context(), args)
			for _, id := range done {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: device and fence removed: plain frames may pass\n", id)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", agent.DefaultRunDir, "the agent's run directory")
	return cmd
}
