package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

func newKeysInitCommand() *cobra.Command {
	var issuer, key string
	cmd := &cobra.Command{
		Use:   "init (--issuer DIR | --signing-key FILE)",
		Short: "Make an issuer of bundles, or a further signer",
		Long: `Make what an issuer of bundles needs: a private directory with its signing key, or
the key alone, for somebody who is to sign what another one issues. It prints the
public key, which belongs in signers: of the channel in the inventory. Do it on
the machine that is to issue, best one that is on no network.`,
		Example: `  lever keys init --issuer /secure/issuer-a
  lever keys init --signing-key /secure/second.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (issuer == "") == (key == "") {
				return errors.New("give --issuer, or --signing-key for a signer that issues nothing")
			}
			var public signed.PublicKey
			var err error
			if issuer != "" {
				public, key, err = issue.MakeIssuer(issuer)
			} else {
				public, err = signed.GenerateKey(key)
			}
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), public); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "made %s; put the public key above into signers: of the channel in the inventory\n", key)
			return err
		},
	}
	cmd.Flags().StringVar(&issuer, "issuer", "", "the private `directory` to make")
	cmd.Flags().StringVar(&key, "signing-key", "", "the key `file` to make")
	return cmd
}

func newKeysSignCommand() *cobra.Command {
	var key, channel, file string
	cmd := &cobra.Command{
		Use:   "sign --signing-key FILE [--channel a|b --inventory FILE] PATH…",
		Short: "Add a further signature to what an issuer has signed",
		Long: `Add a signature to what another one has signed: to all bundles in a directory, or
to a single file such as an override. What others have signed must be intact, and
is not changed; what is in a directory must be signed by one of the channel's
signers, of which the key must be one. The inventory says how many must have signed
(threshold).`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			k, err := signed.ReadKey(key)
			if err != nil {
				return err
			}
			defer k.Erase()
			var first []signed.PublicKey
			if channel != "" || file != "" {
				if first, err = signersOf(channel, file); err != nil {
					return err
				}
			}
			for _, path := range paths {
				n, err := issue.Sign(cmd.Context(), path, k, first, progress(cmd.ErrOrStderr()))
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d signed as %s\n", path, n, k.Public()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "signing-key", "", "the signer's key `file` (required)")
	cmd.Flags().StringVar(&channel, "channel", "", "of a directory of bundles: the `channel`, a or b")
	cmd.Flags().StringVar(&file, "inventory", "", "of a directory of bundles: inventory `file` or directory")
	cmd.MarkFlagsRequiredTogether("channel", "inventory")
	_ = cmd.MarkFlagRequired("signing-key")
	return cmd
}

// signersOf are the signers of a channel of an inventory.
func signersOf(channel, file string) ([]signed.PublicKey, error) {
	side, err := keys.ParseSide(channel)
	if err != nil {
		return nil, fmt.Errorf("--channel: %w", err)
	}
	inv, err := inventory.Load(file)
	if err != nil {
		return nil, err
	}
	c := [2]inventory.Channel{inv.Channels.A, inv.Channels.B}[side]
	if c.Type != "bundle" {
		return nil, fmt.Errorf("channel %s of %s is of type %s, which nobody signs", side, file, c.Type)
	}
	return signed.ParsePublicKeys(c.Signers)
}

func newKeysOverrideCommand() *cobra.Command {
	var key, reason, until, out string
	var all bool
	cmd := &cobra.Command{
		Use:   "override --signing-key FILE --reason TEXT --until TIME --out FILE (--all | LINK…)",
		Short: "Let links go on with keys that are too old, for a while",
		Long: `Let links go on with keys older than the policy's max_age, until the time given.
Two must sign: this makes the statement with a first signature, lever keys sign
adds the second. It has to lie where max_age_override of the inventory says, and
is reported as a fault for as long as it holds.`,
		Example: `  lever keys override --signing-key one.pem --reason "ticket 4711" --until 2027-01-31T12:00:00Z --out age.override fra1-ams1-017
  lever keys sign --signing-key two.pem age.override`,
		RunE: func(cmd *cobra.Command, words []string) error {
			links, err := (&keysTarget{}).links(words)
			if err != nil {
				return err
			}
			expires, err := time.Parse(time.RFC3339, until)
			if err != nil {
				return fmt.Errorf("--until %q: write a time such as 2027-01-31T12:00:00Z", until)
			}
			now := time.Now().UTC().Truncate(time.Second)
			if !expires.After(now) {
				return fmt.Errorf("--until %q is over", until)
			}
			k, err := signed.ReadKey(key)
			if err != nil {
				return err
			}
			defer k.Erase()
			s, err := signed.NewOverride(signed.Override{All: all, Links: links, Reason: reason, Issued: now, Expires: expires.UTC()})
			if err == nil {
				err = s.Sign(k)
			}
			if err == nil {
				err = issue.WriteStatement(out, s)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is signed by %s; it counts when a second one has signed it (lever keys sign --signing-key … %s)\n", out, k.Public(), out)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "signing-key", "", "the signer's key `file` (required)")
	f.StringVar(&reason, "reason", "", "why, for those who see it (required)")
	f.StringVar(&until, "until", "", "until when, such as 2027-01-31T12:00:00Z (required)")
	f.StringVar(&out, "out", "", "the `file` to write (required)")
	f.BoolVar(&all, "all", false, "for all links")
	for _, name := range []string{"signing-key", "reason", "until", "out"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func newKeysGrantCommand() *cobra.Command {
	var t keysTarget
	var issuers []string
	cmd := &cobra.Command{
		Use:   "grant --channel a|b --inventory FILE --issuer-name NAME",
		Short: "Write an etcd cluster's roles: each node reads what is its own",
		Long: `Write an etcd cluster's users and roles, by the inventory, and turn its access
control on: each node may read what is beneath its own name and nothing else, and
the issuers named may write. A user has the name of its certificate's Common Name,
and no password. The certificate that is used must be root's. Nothing is taken
from nodes that are not in the inventory: lever keys revoke does that.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if t.inventory == "" {
				return errors.New("--inventory is missing: it says which nodes there are")
			}
			channel, err := t.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, channel.Close()) }()
			done, err := issue.Grant(cmd.Context(), channel, issuers)
			for _, line := range done {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			if err == nil && len(done) == 0 {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "all is as it should be")
			}
			return err
		},
	}
	t.flags(cmd, "out")
	cmd.Flags().StringSliceVar(&issuers, "issuer-name", nil, "`name` of an issuer, the Common Name of its certificate (required)")
	_ = cmd.MarkFlagRequired("issuer-name")
	return cmd
}
