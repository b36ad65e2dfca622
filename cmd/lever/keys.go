package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
)

// newKeysCommand is lever keys: the material of one channel at a time.
func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Issue, list, verify and revoke pre-key material of one channel",
		Long: `Issue, list, verify and revoke pre-key material of one channel.

A link's key is combined from two channels' material by its own two agents. Each
command works on one channel, so that no process, and if you run channel a and b
on different systems no system, ever holds both. Material is never printed.

What a command needs besides the inventory depends on the channel's type there:
for bundle the issuer's private directory, for etcd the issuer's certificate.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysIssueCommand(), newKeysServeCommand(), newKeysListCommand(), newKeysVerifyCommand(), newKeysRevokeCommand(), newKeysReadmitCommand(),
		newKeysInitCommand(), newKeysSignCommand(), newKeysGrantCommand(), newKeysOverrideCommand())
	return cmd
}

// keysTarget is which channel, and with what it is opened.
type keysTarget struct {
	channel   string
	inventory string
	options   issue.Options

	side keys.Side
	inv  *inventory.Inventory
}

// flags are those of every verb about a channel. The directory has another name
// where it is read only.
func (t *keysTarget) flags(cmd *cobra.Command, dirFlag string) {
	f := cmd.Flags()
	f.StringVar(&t.channel, "channel", "", "the `channel`, a or b (required)")
	f.StringVar(&t.inventory, "inventory", "", "inventory `file` or directory")
	f.StringVar(&t.options.Out, dirFlag, "", "`directory` of the channel (default: the one in the inventory)")
	f.StringVar(&t.options.Issuer, "issuer", "", "bundle: the issuer's private `directory`")
	f.StringVar(&t.options.SigningKey, "signing-key", "", "bundle: the issuer's signing key `file` (default: signing.pem in the issuer's directory)")
	f.StringVar(&t.options.Certificate, "certificate", "", "etcd: the issuer's certificate `file`")
	f.StringVar(&t.options.Key, "key", "", "etcd: the `file` of its key")
	f.StringVar(&t.options.CA, "ca", "", "etcd: `file` of whom to trust (default: the one in the inventory)")
	_ = cmd.MarkFlagRequired("channel")
}

// open opens the one channel. Without an inventory it is a directory.
func (t *keysTarget) open() (issue.Channel, error) {
	var err error
	if t.side, err = keys.ParseSide(t.channel); err != nil {
		return nil, fmt.Errorf("--channel: %w", err)
	}
	if t.inventory == "" {
		if t.options.Out == "" {
			return nil, errors.New("neither --inventory nor a directory is given: name the channel's directory, or an inventory that does")
		}
		return issue.OpenDir(t.side, t.options.Out), nil
	}
	if t.inv, err = inventory.Load(t.inventory); err != nil {
		return nil, err
	}
	return issue.Open(t.side, t.inv, t.options)
}

// links are the ids of those named. Links that take no keys from the channels are
// refused.
func (t *keysTarget) links(words []string) (ids []string, err error) {
	for _, word := range words {
		id, err := named(linkKind, word)
		if err != nil {
			return nil, err
		}
		if t.inv != nil && !slices.ContainsFunc(t.inv.KeyedLinks(), func(l *inventory.Link) bool { return l.ID == id }) {
			return nil, fmt.Errorf("link %q takes no keys from the channels: in %s it is unknown, external, or not to be encrypted; see lever check", id, t.inventory)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func newKeysIssueCommand() *cobra.Command {
	var t keysTarget
	var epochs int
	var reissue string
	var afterPause bool
	cmd := &cobra.Command{
		Use:   "issue --channel a|b --inventory FILE [--epochs N | --reissue EPOCH] [LINK…]",
		Short: "Write new material for the next epochs of links",
		Long: `Write 32 random octets for the next epochs of each link. Without LINK, for every
link of the inventory that is to be encrypted and has a Lever at every end. What
was issued before stays as it is, so that a command that was interrupted is simply
given again.

If a channel of the inventory is anything but a directory, epochs follow a
schedule: each is numbered by the minute at which it starts, since 1970, and
begins by itself. --epochs 1 is the current one, 2 and 3 those that follow; none is
issued further ahead. lever keys serve does it for as long as it runs.

Of bundles it keeps what links have that are not in the inventory any more, until
that is over, and warns of them; a node that a link no longer has loses its keys.
What is over it retires: what is older than max_age and cak_epoch. It does not when
the clock is far ahead of what was issued last, for that may be wrong: then what
there was stays until what is new has been out for an epoch, or until --after-pause
says that nothing was issued for so long.

Between two directories epochs are counted, after the highest that the directory
has or has had, and begin when they arrive. The highest that only some of the links
have had is completed first, and is then the first of --epochs: so the links stay
together, whatever was interrupted. Copy the directory to both ends, each file by
renaming it into place.

--reissue gives an epoch other material, as its next generation, on this channel
alone: both ends combine it with what the other channel has.`,
		Example: `  lever keys issue --channel a --inventory net.yaml --out keys/a
  lever keys issue --channel a --inventory net.yaml --issuer /secure/issuer-a --epochs 3
  lever keys issue --channel b --inventory net.yaml --certificate issuer.pem --key issuer.key
  lever keys issue --channel a --inventory net.yaml --reissue 42 fra1-ams1-017`,
		RunE: func(cmd *cobra.Command, words []string) (err error) {
			if t.inventory == "" {
				return errors.New("--inventory is missing: it says which links need keys")
			}
			if epochs < 1 || epochs > 1000 {
				return fmt.Errorf("--epochs %d: issue between 1 and 1000 at a time", epochs)
			}
			r := issue.Request{AfterPause: afterPause}
			if reissue != "" {
				number, exact, err := parseEpochArg(reissue)
				if err == nil && !exact.IsZero() {
					err = fmt.Errorf("epoch %s: write the number alone, %d: it gets the generation that follows its last", exact, number)
				}
				if err != nil {
					return fmt.Errorf("--reissue: %w", err)
				}
				r.Reissue = number
			}
			channel, err := t.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, channel.Close()) }()
			if r.Links, err = t.links(words); err != nil {
				return err
			}
			if kind := [2]inventory.Channel{t.inv.Channels.A, t.inv.Channels.B}[t.side].Type; afterPause && kind != "bundle" {
				return fmt.Errorf("--after-pause: channel %s is of type %s, which has no use for it", t.side, kind)
			}
			if len(t.inv.KeyedLinks()) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "no link of the inventory needs keys from the channels: nothing written")
				return err
			}
			switch {
			case r.Reissue != 0:
			case !t.inv.Scheduled():
				r.Count = epochs
			case epochs > 1+keys.MaxPrefetch:
				return fmt.Errorf("--epochs %d: epochs on a schedule are issued at most %d ahead", epochs, keys.MaxPrefetch)
			default:
				r.Epochs = issue.Numbers(time.Now(), t.inv.Policy.CAKEpoch, epochs)
			}
			return t.issue(cmd, channel, r)
		},
	}
	t.flags(cmd, "out")
	cmd.Flags().IntVar(&epochs, "epochs", 1, "how many epochs to issue for each link")
	cmd.Flags().StringVar(&reissue, "reissue", "", "write other material for this `epoch`, as its next generation")
	cmd.Flags().BoolVar(&afterPause, "after-pause", false, "bundle: nothing was issued for longer than max_age, and the clock is right: retire what is over at once")
	cmd.MarkFlagsMutuallyExclusive("epochs", "reissue")
	cmd.MarkFlagsMutuallyExclusive("after-pause", "reissue")
	return cmd
}

// issue writes and tells what it wrote, also when it then fails. A large fleet's
// progress goes to standard error.
func (t *keysTarget) issue(cmd *cobra.Command, channel issue.Channel, r issue.Request) error {
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	rows := 0
	r.Each = func(link string, e keys.Epoch, where string) {
		if rows == 0 {
			fmt.Fprintln(table, "LINK\tEPOCH\tFILE")
		}
		rows++
		fmt.Fprintf(table, "%s\t%s\t%s\n", link, e, where)
	}
	r.Progress = progress(cmd.ErrOrStderr())
	res, err := channel.Issue(cmd.Context(), r)
	err = errors.Join(err, table.Flush())
	if (rows == 0 || res.Kept > 0) && (err == nil || res.Written > 0) {
		_, werr := fmt.Fprintf(cmd.OutOrStdout(), "%d issued, %d had been%s\n", res.Written, res.Kept, ofEpochs(r.Epochs))
		err = errors.Join(err, werr)
	}
	for _, n := range append(res.Notes, res.Warnings...) {
		fmt.Fprintln(cmd.ErrOrStderr(), n)
	}
	return err
}

// ofEpochs says which epochs, and when they begin.
func ofEpochs(numbers []uint64) string {
	var parts []string
	for _, n := range numbers {
		parts = append(parts, fmt.Sprintf("%d (from %s on)", n, keys.Epoch{Number: n}.Start().UTC().Format("2006-01-02T15:04Z")))
	}
	if parts == nil {
		return ""
	}
	return "; epochs " + strings.Join(parts, ", ")
}

// progress tells of work that takes longer than a few seconds.
func progress(out io.Writer) func(done, total int) {
	const every = 2 * time.Second
	last := time.Now()
	return func(done, total int) {
		if now := time.Now(); now.Sub(last) >= every {
			last = now
			fmt.Fprintf(out, "%d of %d\n", done, total)
		}
	}
}

// parseEpochArg reads NUMBER or NUMBER.GENERATION; exact is zero for the former.
func parseEpochArg(word string) (number uint64, exact keys.Epoch, err error) {
	s, err := named(epochKind, word)
	if err != nil {
		return 0, keys.Epoch{}, err
	}
	if strings.Contains(s, ".") {
		e, err := keys.ParseEpoch(s)
		return e.Number, e, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, keys.Epoch{}, fmt.Errorf("epoch %q: write a number from 1, or NUMBER.GENERATION such as 42.0", s)
	}
	return n, keys.Epoch{}, nil
}
