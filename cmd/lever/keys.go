package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
	"github.com/lever-link/lever/inventory"
)

// newKeysCommand is lever keys: the files of one dir channel at a time.
func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Issue, list and revoke pre-key material of one channel",
		Long: `Issue, list and revoke pre-key material of one channel.

A link's key is combined from two channels' material by its own two agents. Each
command works on one channel, so that no process, and if you run channel a and b
on different systems no system, ever holds both. Material is never printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysIssueCommand(), newKeysListCommand(), newKeysRevokeCommand())
	return cmd
}

// keysTarget is which channel, where, and which links.
type keysTarget struct {
	channel   string
	inventory string
	dir       string

	side  keys.Side
	root  string
	links []string
}

func (t *keysTarget) flags(cmd *cobra.Command, dirFlag, dirUsage string) {
	cmd.Flags().StringVar(&t.channel, "channel", "", "the `channel`, a or b (required)")
	cmd.Flags().StringVar(&t.inventory, "inventory", "", "inventory `file` or directory")
	cmd.Flags().StringVar(&t.dir, dirFlag, "", dirUsage)
	_ = cmd.MarkFlagRequired("channel")
}

// resolve fills in side, root and links. Without an inventory the links are those
// named, or all that the directory has.
func (t *keysTarget) resolve(named []string) error {
	side, err := keys.ParseSide(t.channel)
	if err != nil {
		return fmt.Errorf("--channel: %w", err)
	}
	t.side, t.root, t.links = side, t.dir, named
	if t.inventory == "" {
		if t.root == "" {
			return errors.New("neither --inventory nor a directory is given: name the channel's directory, or an inventory that does")
		}
		return nil
	}
	inv, err := inventory.Load(t.inventory)
	if err != nil {
		return err
	}
	channels := [2]inventory.Channel{inv.Channels.A, inv.Channels.B}
	if t.root == "" {
		c := channels[side]
		if c.Type != "dir" || c.Path == "" {
			return fmt.Errorf("channel %s of %s is of type %q, not a directory: name a directory", side, t.inventory, c.Type)
		}
		t.root = c.Path
	}
	if other := channels[side.Other()]; other.Path != "" && samePath(t.root, other.Path) {
		return fmt.Errorf("%s is the directory of channel %s in %s, not of channel %s: one directory is never both", t.root, side.Other(), t.inventory, side)
	}
	keyed := keyedLinks(inv)
	if len(named) == 0 {
		t.links = keyed
		return nil
	}
	for _, l := range named {
		if !slices.Contains(keyed, l) {
			return fmt.Errorf("link %q takes no keys from the channels: in %s it is unknown, external, or not to be encrypted; see lever check", l, t.inventory)
		}
	}
	return nil
}

// keyedLinks are the ids of the links whose keys come from the channels.
func keyedLinks(inv *inventory.Inventory) []string {
	var ids []string
	for _, l := range inv.KeyedLinks() {
		ids = append(ids, l.ID)
	}
	return ids
}

func samePath(x, y string) bool {
	if ix, err := os.Stat(x); err == nil {
		if iy, err := os.Stat(y); err == nil {
			return os.SameFile(ix, iy)
		}
	}
	ax, errX := filepath.Abs(x)
	ay, errY := filepath.Abs(y)
	return errX == nil && errY == nil && ax == ay
}

func newKeysIssueCommand() *cobra.Command {
	var t keysTarget
	var epochs int
	var reissue string
	cmd := &cobra.Command{
		Use:   "issue --channel a|b --inventory FILE [--out DIR] [--epochs N | --reissue EPOCH] [LINK…]",
		Short: "Write new material for the next epochs of links",
		Long: `Write 32 random octets for the next epochs of each link, after the highest that
the directory has or has had. Without LINK, for every link of the inventory that
is to be encrypted and has a Lever at every end. Copy the directory to both ends,
each file by renaming it into place.`,
		Example: `  lever keys issue --channel a --inventory net.yaml --out keys/a
  lever keys issue --channel a --inventory net.yaml --reissue 42 fra1-ams1-017`,
		RunE: func(cmd *cobra.Command, named []string) error {
			if t.inventory == "" {
				return errors.New("--inventory is missing: it says which links need keys")
			}
			if epochs < 1 || epochs > 1000 {
				return fmt.Errorf("--epochs %d: issue between 1 and 1000 at a time", epochs)
			}
			var number uint64
			if reissue != "" {
				var err error
				if number, _, err = parseEpochArg(reissue); err != nil {
					return fmt.Errorf("--reissue: %w", err)
				}
			}
			if err := t.resolve(named); err != nil {
				return err
			}
			if len(t.links) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "no link of the inventory needs keys from the channels: nothing written")
				return err
			}
			if err := dir.Claim(t.root, t.side); err != nil {
				return err
			}
			return t.issue(cmd.OutOrStdout(), epochs, number)
		},
	}
	t.flags(cmd, "out", "`directory` of the channel (default: the one in the inventory)")
	cmd.Flags().IntVar(&epochs, "epochs", 1, "how many epochs to issue for each link")
	cmd.Flags().StringVar(&reissue, "reissue", "", "write other material for this `epoch`, as its next generation")
	cmd.MarkFlagsMutuallyExclusive("epochs", "reissue")
	return cmd
}

// issue writes and tells what it wrote, also when it then fails.
func (t *keysTarget) issue(out io.Writer, epochs int, reissue uint64) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LINK\tEPOCH\tFILE")
	var errs []error
	for _, link := range t.links {
		var done []keys.Epoch
		var err error
		if reissue != 0 {
			var e keys.Epoch
			if e, err = dir.Reissue(t.root, link, reissue); err == nil {
				done = append(done, e)
			}
		} else {
			done, err = dir.Issue(t.root, link, epochs)
		}
		for _, e := range done {
			fmt.Fprintf(table, "%s\t%s\t%s\n", link, e, filepath.Join(t.root, link, dir.FileName(e)))
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, table.Flush())...)
}

// listedKey is one line of lever keys list.
type listedKey struct {
	Link        string    `json:"link"`
	Epoch       string    `json:"epoch,omitempty"`
	Mode        string    `json:"mode,omitempty"`
	Modified    time.Time `json:"modified,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	State       string    `json:"state"` // ok, refused, ignored or none
	Detail      string    `json:"detail,omitempty"`
	File        string    `json:"file,omitempty"`
}

func newKeysListCommand() *cobra.Command {
	var t keysTarget
	var output string
	cmd := &cobra.Command{
		Use:   "list --channel a|b (--inventory FILE | --dir DIR) [-o table|json] [LINK…]",
		Short: "Show what a channel holds, without showing material",
		Long: `Show what a channel holds for each link, and what is wrong with it. Material is
not shown; its fingerprint tells whether two ends have the same: compare it for
one channel, link and epoch between them.`,
		RunE: func(cmd *cobra.Command, named []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: it is table or json", output)
			}
			if err := t.resolve(named); err != nil {
				return err
			}
			rows, err := t.list()
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(rows)
			}
			return printKeys(cmd.OutOrStdout(), rows)
		},
	}
	t.flags(cmd, "dir", "`directory` of the channel (default: the one in the inventory)")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`format`: table or json")
	return cmd
}

func (t *keysTarget) list() ([]listedKey, error) {
	if _, err := dir.CheckSide(t.root, t.side); err != nil {
		return nil, err
	}
	links := t.links
	if len(links) == 0 {
		var err error
		if links, err = dir.Links(t.root); err != nil {
			return nil, err
		}
	}
	rows := []listedKey{}
	for _, link := range links {
		l := dir.Scan(t.root, link)
		rows = append(rows, describe(link, l)...)
		l.Erase()
	}
	return rows, nil
}

// describe turns a listing into lines; the material ends here.
func describe(link string, l dir.Listing) []listedKey {
	if l.Err != nil {
		return []listedKey{{Link: link, State: "refused", Detail: dir.Problem(l.Err), File: l.Where}}
	}
	var rows []listedKey
	for _, e := range l.Entries {
		row := listedKey{
			Link: link, Epoch: e.Epoch.String(), Mode: fmt.Sprintf("%04o", e.Mode.Perm()),
			Modified: e.Modified.UTC().Truncate(time.Second), State: "ok", File: e.File,
		}
		if e.Err != nil {
			row.State, row.Detail = "refused", dir.Problem(e.Err)
		} else {
			row.Fingerprint = e.Material.Fingerprint().Short()
		}
		rows = append(rows, row)
	}
	for file, err := range l.Unexpected {
		rows = append(rows, listedKey{Link: link, State: "ignored", Detail: err.Error(), File: file})
	}
	slices.SortStableFunc(rows[len(l.Entries):], func(a, b listedKey) int { return strings.Compare(a.File, b.File) })
	if len(rows) == 0 {
		rows = append(rows, listedKey{Link: link, State: "none", Detail: "no key has been delivered", File: l.Where})
	}
	return rows
}

func printKeys(out io.Writer, rows []listedKey) error {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LINK\tEPOCH\tMODE\tMODIFIED\tFINGERPRINT\tFILE\tSTATE")
	for _, r := range rows {
		modified := "-"
		if !r.Modified.IsZero() {
			modified = r.Modified.Format(time.RFC3339)
		}
		state := r.State
		if r.Detail != "" {
			state += ": " + r.Detail
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Link, dash(r.Epoch), dash(r.Mode), modified, dash(r.Fingerprint), r.File, state)
	}
	return table.Flush()
}

func newKeysRevokeCommand() *cobra.Command {
	var t keysTarget
	cmd := &cobra.Command{
		Use:   "revoke --channel a|b (--inventory FILE | --dir DIR) EPOCH [LINK…]",
		Short: "Remove an epoch's material from a channel, which revokes the key at once",
		Long: `Remove an epoch's material from a channel. EPOCH is a number, for all of its
generations, or NUMBER.GENERATION. An agent that reads the directory stops using
the key at once, even when it has no other. One channel is enough.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, exact, err := parseEpochArg(args[0])
			if err != nil {
				return err
			}
			if err := t.resolve(args[1:]); err != nil {
				return err
			}
			return t.revoke(cmd.OutOrStdout(), args[0], number, exact)
		},
	}
	t.flags(cmd, "dir", "`directory` of the channel (default: the one in the inventory)")
	return cmd
}

func (t *keysTarget) revoke(out io.Writer, arg string, number uint64, exact keys.Epoch) error {
	if _, err := dir.CheckSide(t.root, t.side); err != nil {
		return err
	}
	if len(t.links) == 0 {
		var err error
		if t.links, err = dir.Links(t.root); err != nil {
			return err
		}
	}
	removed := 0
	var errs []error
	for _, link := range t.links {
		issued, err := dir.Issued(t.root, link)
		errs = append(errs, err)
		slices.SortFunc(issued, keys.Epoch.Compare)
		for _, e := range issued {
			if e.Number != number || !exact.IsZero() && e != exact {
				continue
			}
			existed, err := dir.Revoke(t.root, link, e)
			errs = append(errs, err)
			if err == nil && existed {
				removed++
				fmt.Fprintf(out, "revoked %s of %s: removed %s\n", e, link, filepath.Join(t.root, link, dir.FileName(e)))
			}
		}
	}
	err := errors.Join(errs...)
	if err == nil && removed == 0 {
		return fmt.Errorf("revoking epoch %s: none of the links (%s) has it in %s; see lever keys list", arg, strings.Join(t.links, ", "), t.root)
	}
	return err
}

// parseEpochArg reads NUMBER or NUMBER.GENERATION; exact is zero for the former.
func parseEpochArg(s string) (number uint64, exact keys.Epoch, err error) {
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
