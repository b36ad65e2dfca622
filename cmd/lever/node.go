package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/identity"
	"github.com/lever-link/lever/inventory"
)

// newNodeCommand is lever node: what opens the bundles that are sealed to a node.
func newNodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Make, show, enrol and retire a node's identities",
		Long: `Make, show, enrol and retire a node's identities. Bundles of pre-key material are
sealed to a node's recipients, the public parts of its identities, and only the
node can open them. Secrets are never printed and never leave the node.

An identity is replaced without a gap in this order: lever node init on the node;
lever node enrol in the inventory, beside the old one; issue, so that material is
sealed to both; lever node retire on the node, when it has that material; and lever
node enrol --replace in the inventory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeInitCommand(), newNodeShowCommand(), newNodeEnrolCommand(), newNodeRetireCommand())
	return cmd
}

// identities is the flag that says where a node's identities are.
type identities struct{ stateDir string }

func (i *identities) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&i.stateDir, "state-dir", agent.DefaultStateDir, "the agent's state `directory`; identities are in it")
}

func (i *identities) dir() string { return filepath.Join(i.stateDir, identity.Dir) }

func newNodeInitCommand() *cobra.Command {
	var where identities
	var opts identity.Options
	cmd := &cobra.Command{
		Use:   "init [--state-dir DIR] [--tpm[=DEVICE]]",
		Short: "Make an identity for this node, beside those it has",
		Long: `Make an identity for this node, beside those it has, and print its recipient: a
hybrid post-quantum one of age (ML-KEM-768 and X25519). With --tpm it is sealed to
the TPM 2.0 of this machine, and of no use elsewhere nor after the TPM was cleared.`,
		Example: `  lever node init
  lever node init --tpm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := identity.Init(where.dir(), opts)
			if err != nil {
				return err
			}
			there, err := identity.List(where.dir())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), e.Recipient)
			how := ""
			if e.Device != "" {
				how = ", sealed by the TPM " + e.Device
			}
			said := fmt.Sprintf("made %s%s\n", e.File, how)
			if len(there) == 1 {
				said += "next: have this recipient enrolled (lever node enrol --inventory FILE --node NODE -) and material issued to this node\n"
			} else {
				said += fmt.Sprintf("next: have this recipient enrolled beside the old one (lever node enrol --inventory FILE --node NODE -) and material issued to both;\n"+
					"then lever node retire here, which removes the older %d, and lever node enrol --replace\n", len(there)-1)
			}
			_, err = io.WriteString(cmd.ErrOrStderr(), said)
			return err
		},
	}
	where.flag(cmd)
	cmd.Flags().StringVar(&opts.TPM, "tpm", "", "seal the identity to the TPM 2.0 at this `device`")
	cmd.Flags().Lookup("tpm").NoOptDefVal = identity.DefaultTPM
	return cmd
}

func newNodeShowCommand() *cobra.Command {
	var where identities
	cmd := &cobra.Command{
		Use:   "show [--state-dir DIR]",
		Short: "Print this node's recipients, one a line",
		Long: `Print the recipients of this node's identities, one a line and the oldest first,
as lever node enrol takes them. An identity that cannot be read is named on standard
error, and the exit status is then 1.`,
		Example: `  lever node show | ssh issuer lever node enrol --inventory net.yaml --node fra1-r1 -`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := identity.List(where.dir())
			if err != nil {
				return err
			}
			if len(entries) == 0 {
				return fmt.Errorf("%s: %w", where.dir(), identity.ErrNone)
			}
			var errs []error
			for _, e := range entries {
				if errs = append(errs, e.Err); e.Err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), e.Recipient)
				}
			}
			return errors.Join(errs...)
		},
	}
	where.flag(cmd)
	return cmd
}

func newNodeEnrolCommand() *cobra.Command {
	var path, node string
	var replace bool
	cmd := &cobra.Command{
		Use:   "enrol --inventory FILE --node NODE [--replace] RECIPIENT|-",
		Short: "Write a node's recipient into the inventory",
		Long: `Write a node's recipient, as lever node show prints it there, into the inventory, in
the file in which the node stands; nothing else in it changes. The first recipient
of a node is set and the next put beside it. With --replace only the one given is
left. With - recipients are read from standard input, one a line.

Whoever can write the inventory says who may read the material of a node: compare
the recipient with what the node shows over a way that you trust.`,
		Example: `  lever node enrol --inventory net.yaml --node fra1-r1 age1pq1…
  ssh fra1-r1 lever node show | lever node enrol --inventory net.yaml --node fra1-r1 -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			recipients := args
			if args[0] == "-" {
				var err error
				if recipients, err = readRecipients(cmd.InOrStdin()); err != nil {
					return err
				}
			}
			if replace && len(recipients) > 1 {
				return fmt.Errorf("--replace leaves one recipient, and %d are given: choose the last, which is of the newest identity", len(recipients))
			}
			changed := 0
			for _, r := range recipients {
				file, err := inventory.Enrol(path, node, r, replace)
				if err != nil {
					return err
				}
				if file == "" {
					fmt.Fprintf(cmd.OutOrStdout(), "node %s has this recipient already: %s\n", node, shortened(r))
					continue
				}
				changed++
				fmt.Fprintf(cmd.OutOrStdout(), "enrolled %s for node %s in %s\n", shortened(r), node, file)
			}
			switch {
			case changed == 0:
				return nil
			case replace:
				fmt.Fprintf(cmd.ErrOrStderr(), "next: bring the inventory to whoever issues: what is issued from now on only this identity can open\n")
			default:
				fmt.Fprintf(cmd.ErrOrStderr(), "next: bring the inventory to whoever issues, and have material issued to node %s\n", node)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "inventory", "", "inventory `file` or directory (required)")
	cmd.Flags().StringVar(&node, "node", "", "the `node`, as named in the inventory (required)")
	cmd.Flags().BoolVar(&replace, "replace", false, "leave no other recipient to the node")
	_ = cmd.MarkFlagRequired("inventory")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

// maxRecipients is more than a node may have, by far.
const maxRecipients = 16

// readRecipients reads recipients, one a line. Nothing that it reads is quoted:
// somebody may have piped a secret in.
func readRecipients(in io.Reader) (recipients []string, err error) {
	lines := bufio.NewScanner(io.LimitReader(in, 64<<10))
	for lines.Scan() {
		if s := strings.TrimSpace(lines.Text()); s != "" && !strings.HasPrefix(s, "#") {
			recipients = append(recipients, s)
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("reading recipients from standard input: %w", lines.Err())
	case len(recipients) == 0:
		return nil, errors.New("there is no recipient on standard input: pipe the output of lever node show in")
	case len(recipients) > maxRecipients:
		return nil, fmt.Errorf("there are %d lines on standard input: it takes the output of lever node show", len(recipients))
	}
	return recipients, nil
}

// shortened is as much of a recipient as a person compares. It is called with what
// was accepted only.
func shortened(recipient string) string {
	if len(recipient) <= 48 {
		return recipient
	}
	return recipient[:24] + "…" + recipient[len(recipient)-16:]
}

func newNodeRetireCommand() *cobra.Command {
	var where identities
	var path, node string
	cmd := &cobra.Command{
		Use:   "retire [--state-dir DIR] [--inventory FILE --node NODE]",
		Short: "Remove all identities of this node but the newest",
		Long: `Remove all identities of this node but the newest, after opening that one. What is
sealed to the others only can then no longer be opened by anybody: do this when
material that was issued to the newest has arrived. With --inventory nothing is
removed unless the newest is enrolled there.`,
		Example: `  lever node retire --inventory /etc/lever/inventory.yaml --node fra1-r1`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path != "" {
				if err := newestIsEnrolled(where.dir(), path, node); err != nil {
					return err
				}
			}
			removed, err := identity.Retire(where.dir())
			for _, e := range removed {
				fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", e.File)
			}
			switch {
			case err != nil:
				return err
			case len(removed) == 0:
				fmt.Fprintln(cmd.OutOrStdout(), "there is one identity only: nothing to remove")
			default:
				fmt.Fprintf(cmd.ErrOrStderr(), "next: leave the newest recipient alone in the inventory: lever node show here, and there lever node enrol --replace\n")
			}
			return nil
		},
	}
	where.flag(cmd)
	cmd.Flags().StringVar(&path, "inventory", "", "inventory `file` or directory that must have the newest")
	cmd.Flags().StringVar(&node, "node", "", "this `node`, as named in the inventory")
	cmd.MarkFlagsRequiredTogether("inventory", "node")
	return cmd
}

// newestIsEnrolled looks whether material is issued to the newest identity at all.
func newestIsEnrolled(dir, path, node string) error {
	inv, err := inventory.Load(path)
	if err != nil {
		return err
	}
	if _, err := inv.ForNode(node); err != nil {
		return err
	}
	entries, err := identity.List(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: %w", dir, identity.ErrNone)
	}
	newest := entries[len(entries)-1]
	if newest.Err == nil && !slices.Contains(inv.Nodes[node].Recipients, newest.Recipient) {
		return fmt.Errorf("the newest identity %s is not enrolled for node %s in %s, so that nothing is sealed to it: enrol it (lever node enrol) and have material issued first", newest.File, node, path)
	}
	return nil
}
