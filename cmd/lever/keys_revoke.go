package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/inventory"
)

func newKeysRevokeCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "revoke --channel a|b (--inventory FILE | --dir DIR) NODE|LINK|EPOCH [LINK…]",
		Short: "Take material back from a channel, which revokes the keys at once",
		Long: `Take material back from a channel. One channel is enough: an agent that sees it
stops using the keys at once, even when it has no other.

NODE is a node of the inventory: all that it has, and all that the far ends of its
links have for these; nothing is issued for it any more. Then take it out of the
inventory, so that segments which it shared with more than one other get new keys.
LINK is a link of the inventory: all of its epochs. EPOCH is a number, for all of
its generations, or NUMBER.GENERATION; of the links given, or of all. What a link or
an epoch has lost is replaced by the next lever keys issue, as a further generation.`,
		Example: `  lever keys revoke --channel b --inventory net.yaml --certificate issuer.pem --key issuer.key fra1-r1
  lever keys revoke --channel a --dir keys/a 42.0 fra1-ams1-017`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			channel, err := t.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, channel.Close()) }()
			target, err := t.target(args[0], args[1:])
			if err != nil {
				return err
			}
			done, err := channel.Revoke(cmd.Context(), target)
			for _, line := range done {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return err
		},
	}
	t.flags(cmd, "dir")
	return cmd
}

// target finds what a word names.
func (t *keysTarget) target(word string, links []string) (issue.Target, error) {
	var node, link bool
	if t.inv != nil {
		node = t.inv.Nodes[word] != nil
		link = slices.ContainsFunc(t.inv.Links, func(l *inventory.Link) bool { return l.ID == word })
	}
	number, exact, err := parseEpochArg(word)
	switch {
	case node && link, node && err == nil, link && err == nil:
		return issue.Target{}, fmt.Errorf("%q names more than one of a node, a link and an epoch in %s: write an epoch as NUMBER.GENERATION", word, t.inventory)
	case (node || link) && len(links) > 0:
		return issue.Target{}, fmt.Errorf("%q is not an epoch, and so takes no links after it", word)
	case node:
		return issue.Target{Node: word}, nil
	case link:
		if err := t.check([]string{word}); err != nil {
			return issue.Target{}, err
		}
		return issue.Target{Link: word}, nil
	case err != nil && t.inv != nil:
		return issue.Target{}, fmt.Errorf("%q is neither a node nor a link of %s, nor an epoch: %w", word, t.inventory, err)
	case err != nil:
		return issue.Target{}, err
	}
	if err := t.check(links); err != nil {
		return issue.Target{}, err
	}
	return issue.Target{Number: number, Exact: exact, Links: links}, nil
}

func newKeysReadmitCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "readmit --channel a|b --inventory FILE NODE",
		Short: "Let a node that was revoked have keys again",
		Long: `Let a node that was revoked have keys again on a channel. It must be done on the
channel on which it was revoked. What was revoked stays so: the node gets other
keys, with the next lever keys issue.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if t.inventory == "" {
				return errors.New("--inventory is missing: it says which nodes there are")
			}
			channel, err := t.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, channel.Close()) }()
			if t.inv.Nodes[args[0]] == nil {
				return fmt.Errorf("there is no node %q in %s", args[0], t.inventory)
			}
			done, err := channel.Readmit(cmd.Context(), args[0])
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
			}
			return err
		},
	}
	t.flags(cmd, "out")
	return cmd
}
