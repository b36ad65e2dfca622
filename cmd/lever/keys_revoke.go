package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
its generations, or NUMBER.GENERATION; of the links given, or of all. Where a name
could be more than one of these, write node:NAME, link:NAME or epoch:NUMBER. What a
link or an epoch has lost is replaced by the next lever keys issue, as a further
generation.`,
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

// The prefixes that say what a word names. Names in an inventory have no colon.
const (
	nodeKind  = "node"
	linkKind  = "link"
	epochKind = "epoch"
)

// cutKind takes the prefix from a word; kind is empty when there is none.
func cutKind(word string) (kind, name string) {
	for _, kind := range []string{nodeKind, linkKind, epochKind} {
		if name, ok := strings.CutPrefix(word, kind+":"); ok {
			return kind, name
		}
	}
	return "", word
}

// named takes the prefix from a word that can name one kind of thing only.
func named(kind, word string) (string, error) {
	if k, name := cutKind(word); k == "" || k == kind {
		return name, nil
	}
	return "", fmt.Errorf("%q: here is a %s to be named", word, kind)
}

// target finds what a word names.
func (t *keysTarget) target(word string, links []string) (issue.Target, error) {
	kind, name := cutKind(word)
	var is []string // what it may be
	if t.inv != nil && t.inv.Nodes[name] != nil {
		is = append(is, nodeKind)
	}
	if t.inv != nil && slices.ContainsFunc(t.inv.Links, func(l *inventory.Link) bool { return l.ID == name }) {
		is = append(is, linkKind)
	}
	number, exact, err := parseEpochArg(name)
	if err == nil {
		is = append(is, epochKind)
	}
	switch {
	case kind != "":
	case len(is) > 1:
		return issue.Target{}, fmt.Errorf("%q names more than one thing in %s: write which, %s:%s", word, t.inventory, strings.Join(is, ":"+name+" or "), name)
	case len(is) == 1:
		kind = is[0]
	case t.inv != nil:
		return issue.Target{}, fmt.Errorf("%q is neither a node nor a link of %s, nor an epoch: %w", word, t.inventory, err)
	default:
		return issue.Target{}, err
	}
	if kind != epochKind && len(links) > 0 {
		return issue.Target{}, fmt.Errorf("%q is not an epoch, and so takes no links after it", word)
	}
	switch kind {
	case nodeKind:
		if t.inv == nil {
			return issue.Target{}, errors.New("--inventory is missing: it says which nodes there are")
		}
		if !slices.Contains(is, nodeKind) {
			return issue.Target{}, fmt.Errorf("there is no node %q in the inventory %s", name, t.inventory)
		}
		return issue.Target{Node: name}, nil
	case linkKind:
		_, err := t.links([]string{name})
		return issue.Target{Link: name}, err
	}
	if err != nil {
		return issue.Target{}, err
	}
	links, err = t.links(links)
	return issue.Target{Number: number, Exact: exact, Links: links}, err
}

func newKeysReadmitCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "readmit --channel a|b --inventory FILE NODE",
		Short: "Let a node that was revoked have keys again",
		Long: `Let a node that was revoked have keys again on a channel. It must be done on the
channel on which it was revoked. What was revoked stays so: the node gets other
keys, on a channel of bundles at once, otherwise with the next lever keys issue.`,
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
			node, err := named(nodeKind, args[0])
			if err != nil {
				return err
			}
			if t.inv.Nodes[node] == nil {
				return fmt.Errorf("there is no node %q in %s", node, t.inventory)
			}
			done, err := channel.Readmit(cmd.Context(), node)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
			}
			return err
		},
	}
	t.flags(cmd, "out")
	return cmd
}
