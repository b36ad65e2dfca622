package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/keys/keyfile"
)

// stateVersion is the format of a link's state file. Version 1 is from when both
// channels always had the same generation, and its epochs bore that.
const stateVersion = 2

// maxUsed keeps State.Used within what a time.Duration can say.
const maxUsed = 100 * 365 * 24 * 3600

// State is what a link's keys must remember over a restart. None of it is
// secret.
type State struct {
	// HighWater is the newest epoch that both ends have confirmed; older ones are
	// refused. Zero when there was none yet.
	HighWater Epoch
	// ConfirmedAt is when HighWater was confirmed, by the wall clock; zero if unknown.
	ConfirmedAt time.Time
	// Used is how much of the time since then agents have measured when this was saved.
	Used time.Duration
	// Sources are where the channels had HighWater from, by Snapshot.Where; empty if
	// unknown. What another place has never had was not revoked there.
	Sources [2]string
	// Seen is the material of every epoch that was offered to MKA and is not
	// older than HighWater, as fingerprints, a's and b's: one CKN never names two
	// CAKs, not even over a restart.
	Seen map[Epoch][2]Fingerprint

	// anchor is the age of HighWater's key in this process; it is not stored.
	anchor anchor
}

// Clone is a copy that shares nothing.
func (s State) Clone() State {
	s.Seen = maps.Clone(s.Seen)
	return s
}

// Merge is what two records of one link know together: the later mark, with the age that
// goes with it, and the material of its epochs, o's where both have it. Of one mark, s
// knows the age. What s has forgotten since there was too much of it stays forgotten.
func (s State) Merge(o State) State {
	out := s.Clone()
	if s.HighWater.Less(o.HighWater) {
		out.HighWater, out.ConfirmedAt, out.Used, out.anchor, out.Sources = o.HighWater, o.ConfirmedAt, o.Used, o.anchor, o.Sources
	}
	if out.Seen == nil && o.Seen != nil {
		out.Seen = make(map[Epoch][2]Fingerprint)
	}
	maps.Copy(out.Seen, o.Seen)
	maps.DeleteFunc(out.Seen, func(e Epoch, _ [2]Fingerprint) bool { return e.Less(out.HighWater) })
	out.trim(func(e Epoch) bool { _, seen := s.Seen[e]; return seen })
	return out
}

// trim forgets the oldest of the material beyond maxSeen, but for what stays and for the
// mark's, which may come back after it was revoked.
func (s State) trim(stays func(Epoch) bool) {
	if len(s.Seen) <= maxSeen {
		return
	}
	for _, e := range slices.SortedFunc(maps.Keys(s.Seen), Epoch.Compare)[:len(s.Seen)-maxSeen] {
		if e != s.HighWater && !stays(e) {
			delete(s.Seen, e)
		}
	}
}

// stateFile is State on disk. Its link is repeated inside, because a file copied
// to another link's name would lower or raise that link's mark.
type stateFile struct {
	Version   int    `json:"version"`
	Link      string `json:"link"`
	HighWater Epoch  `json:"high_water"`
	// ConfirmedAt may be missing: nobody knew.
	ConfirmedAt time.Time                `json:"confirmed_at,omitzero"`
	UsedSeconds int64                    `json:"used_seconds,omitempty"`
	Sources     *[2]string               `json:"sources,omitempty"`
	Seen        map[Epoch][2]Fingerprint `json:"seen,omitempty"`
}

// States are what a Ring's State is kept in, such as a Store.
type States interface {
	Load(link string) (State, error)
	Save(link string, state State) error
	// Durable says why the disk does not have what Save was given last; nil if it
	// has it, or if there was nothing.
	Durable(link string) error
}

var _ States = (*Store)(nil)

// Store keeps the State of each link in a file of its own, <dir>/links/<link>.json,
// replaced atomically.
type Store struct {
	dir string
	// Replace, if set, puts a State's text in its file in place of what does so
	// durably.
	Replace func(path string, text []byte) error
}

// NewStore keeps states beneath the agent's state directory, which is created
// with the first Save.
func NewStore(stateDir string) *Store { return &Store{dir: filepath.Join(stateDir, "links")} }

// Path is the file of a link's State.
func (s *Store) Path(link string) string { return filepath.Join(s.dir, link+".json") }

// ValidLink reports whether a link id can be the name of a file or directory:
// one path element that is not hidden.
func ValidLink(link string) error {
	if link == "" || strings.HasPrefix(link, ".") || strings.ContainsAny(link, "/\x00") || len(link) > 200 {
		return fmt.Errorf("link id %q cannot name a file: use 1 to 200 characters without slashes that do not start with a dot", link)
	}
	return nil
}

// Load reads the State of a link. A link without one has the zero State and no
// error. When the file cannot be used the error says why; the caller decides
// (NewRing goes on without a mark, and says so loudly).
func (s *Store) Load(link string) (State, error) {
	if err := ValidLink(link); err != nil {
		return State{}, err
	}
	path := s.Path(link)
	fail := func(err error) (State, error) {
		return State{}, fmt.Errorf("reading the confirmed epoch of link %q from %s: %w", link, path, err)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return fail(err)
	}
	var f stateFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return fail(fmt.Errorf("it is not a state file: %w", err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fail(errors.New("it goes on after its end"))
	}
	if f.Version < 1 || f.Version > stateVersion {
		return fail(fmt.Errorf("it has version %d, this Lever knows up to %d: run the Lever that wrote it", f.Version, stateVersion))
	}
	if f.Link != link {
		return fail(fmt.Errorf("it belongs to link %q", f.Link))
	}
	if f.UsedSeconds < 0 || f.UsedSeconds > maxUsed {
		return fail(fmt.Errorf("it says that the key was in use for %d seconds", f.UsedSeconds))
	}
	state := State{HighWater: f.HighWater, ConfirmedAt: f.ConfirmedAt, Used: time.Duration(f.UsedSeconds) * time.Second, Seen: f.Seen}
	if f.Sources != nil {
		state.Sources = *f.Sources
	}
	if f.Version == 1 {
		state = state.paired()
	}
	return state, nil
}

// paired is a State of version 1 with today's epochs.
func (s State) paired() State {
	out := State{Seen: make(map[Epoch][2]Fingerprint, len(s.Seen))}
	out.HighWater, _ = Pair(s.HighWater, s.HighWater)
	for e, prints := range s.Seen {
		if e, ok := Pair(e, e); ok {
			out.Seen[e] = prints
		}
	}
	return out
}

// Durable implements States: what Save has not returned an error for is on disk.
func (*Store) Durable(string) error { return nil }

// Save replaces the State of a link so that a crash leaves the old file or the
// new one: temporary file, fsync, rename, fsync of the directory.
func (s *Store) Save(link string, state State) error {
	if err := ValidLink(link); err != nil {
		return err
	}
	path := s.Path(link)
	f := stateFile{stateVersion, link, state.HighWater, state.ConfirmedAt, int64(state.Used / time.Second), nil, state.Seen}
	if state.Sources != ([2]string{}) {
		f.Sources = &state.Sources
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err == nil {
		replace := keyfile.Replace
		if s.Replace != nil {
			replace = s.Replace
		}
		err = replace(path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("recording the confirmed epoch of link %q in %s: %w", link, path, err)
	}
	return nil
}
