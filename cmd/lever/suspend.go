package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
)

func newSuspendCommand() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:   "suspend [SECONDS]",
		Short: "Announce a planned restart: the far ends wait for it",
		Long: `Announce on every link that this agent will be away for SECONDS, at most and by
default 120, and return when the far ends have confirmed it. Stop the agent then,
and start it again before the time is over: traffic goes on meanwhile, and no far
end says that its peer is lost. No SAK is replaced as long as it lasts. 0 takes
the announcement back.

The exit status is 1 when a far end does not wait, and each link says why.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			away := agent.MaxSuspension
			if len(args) == 1 {
				n, err := strconv.ParseUint(args[0], 10, 32)
				if err != nil || time.Duration(n)*time.Second > agent.MaxSuspension {
					return fmt.Errorf("suspend takes a number of seconds from 0 to %.0f; found %q", agent.MaxSuspension.Seconds(), args[0])
				}
				away = time.Duration(n) * time.Second
			}
			all, err := agent.NewClient(runDir).Suspend(cmd.Context(), away)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				return errors.New("no link of this node is encrypted: there is nothing to suspend")
			}
			failed := 0
			for _, s := range all {
				switch {
				case s.Error != "":
					failed++
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", s.Link, s.Error)
				case away == 0:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: the announcement is taken back\n", s.Link)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: the far end waits until %s\n", s.Link, s.Until.Format(time.TimeOnly))
				}
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d links may be given up by their far ends if the agent stops now", failed, len(all))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", agent.DefaultRunDir, "the agent's run directory")
	return cmd
}
