package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
)

func newRekeyCommand() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:   "rekey LINK",
		Short: "Replace a link's SAK now",
		Long: `Replace a link's SAK now, at whichever end this is, and return when the new one
is in use at both ends. No frame is lost. SAKs are replaced on schedule anyway
(sak_rekey in the inventory's policy).`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("rekey takes one link, as lever status lists them; %d were given", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := agent.NewClient(runDir).Rekey(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			an := uint8(0)
			if l.AN != nil {
				an = *l.AN
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: key number %d on AN %d is in use at both ends\n", l.ID, l.KN, an)
			return err
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", agent.DefaultRunDir, "the agent's run directory")
	return cmd
}
