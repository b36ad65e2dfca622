package main

import (
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/issue"
)

func newKeysServeCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "serve --channel a|b --inventory FILE",
		Short: "Issue on the schedule of the inventory's policy, for as long as it runs",
		Long: `Issue on the schedule of the inventory's policy (cak_epoch): the current epoch and
the two that follow, at once and whenever another one is due, and erase what is
older than max_age. It serves one channel; run the other one on another system.

The inventory is read again each time. One with mistakes changes nothing, and is
said in the log until it is corrected. It may be killed at any time: what is
missing is issued when it is started again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.inventory == "" {
				return errors.New("--inventory is missing: it says which links need keys")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			t.options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			s := issue.Server{Log: t.options.Log, Open: func() (issue.Channel, *issue.Schedule, error) {
				channel, err := t.open()
				if err != nil {
					return nil, nil, err
				}
				return channel, &issue.Schedule{Epoch: t.inv.Policy.CAKEpoch, MaxAge: t.inv.Policy.MaxAge}, nil
			}}
			return s.Run(ctx)
		},
	}
	t.flags(cmd, "out", issueTo)
	return cmd
}
