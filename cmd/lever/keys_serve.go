package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
)

func newKeysServeCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "serve --channel a|b --inventory FILE",
		Short: "Issue on the schedule of the inventory's policy, for as long as it runs",
		Long: `Issue on the schedule of the inventory's policy (cak_epoch): the current epoch and
the two that follow, at once and whenever another one is due, and erase what is
older than max_age. It serves one channel; run the other one on another system.

The inventory is read again each time. One with mistakes is said in the log, and
leaves the one before in force. It may be killed at any time: what is
missing is issued when it is started again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.inventory == "" {
				return errors.New("--inventory is missing: it says which links need keys")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			t.options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			side, err := keys.ParseSide(t.channel)
			if err != nil {
				return fmt.Errorf("--channel: %w", err)
			}
			// No waiting mends a flag; an inventory that cannot be read may be one on its way.
			if inv, err := inventory.Load(t.inventory); err == nil {
				if err := t.options.Suit(side, inv); err != nil {
					return err
				}
			}
			s := issue.Server{
				Load: func() (*inventory.Inventory, error) { return inventory.Load(t.inventory) },
				Open: func(inv *inventory.Inventory) (issue.Channel, error) { return issue.Open(side, inv, t.options) },
				Log:  t.options.Log,
			}
			return s.Run(ctx)
		},
	}
	t.flags(cmd, "out")
	return cmd
}
