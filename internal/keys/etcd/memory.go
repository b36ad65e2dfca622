package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

const (
	memoryVersion = 1
	// recordEvery is how often a revision that has only grown is recorded.
	recordEvery = 30 * time.Second
	// maxLost is how many lost epochs of a link are remembered, the newest of them.
	maxLost = 8
)

// memory is what a node remembers of the cluster, so that a cluster which has gone
// back, as one restored from a backup has, revokes nothing by what it has lost. None
// of it is secret.
//
// The rule: when the cluster's revision is lower than one seen before, or when it is
// another cluster, every epoch of which a value was seen there and that is missing
// now counts as lost, not as revoked. It stays Present, over restarts too, until its
// value is there again, or until somebody removes the state file while the agent is
// stopped. The fault stands until the revision has passed the highest that was seen,
// and for a link that has lost epochs until a newer one than these was issued.
//
// What was deleted after the backup is back as well. That cannot be told from what
// was issued again; a Ring refuses what is older than its confirmed epoch.
type memory struct {
	path string

	cluster uint64
	// revision is the newest seen in the cluster's present life, highest in any.
	revision, highest int64
	// behind is set while the revision has not passed highest again.
	behind bool
	detail string
	seen   map[string]map[keys.Epoch]bool // by link
	lost   map[string]map[keys.Epoch]bool

	// recorded is when and with which revision the file was written.
	recorded         time.Time
	recordedRevision int64
	dirty            bool
}

// memoryFile is memory on disk.
type memoryFile struct {
	Version  int                     `json:"version"`
	Cluster  uint64                  `json:"cluster"`
	Revision int64                   `json:"revision"`
	Highest  int64                   `json:"highest"`
	Behind   bool                    `json:"behind,omitempty"`
	Detail   string                  `json:"detail,omitempty"`
	Seen     map[string][]keys.Epoch `json:"seen,omitempty"`
	Lost     map[string][]keys.Epoch `json:"lost,omitempty"`
}

// openMemory reads the file; without a path, nothing outlives the process. When it
// cannot be used, the memory is empty and the error says why.
func openMemory(path string) (*memory, error) {
	m := &memory{path: path, seen: map[string]map[keys.Epoch]bool{}, lost: map[string]map[keys.Epoch]bool{}}
	if path == "" {
		return m, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	var f memoryFile
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		err = dec.Decode(&f)
	}
	if err == nil && f.Version != memoryVersion {
		err = fmt.Errorf("it has version %d, this Lever knows %d", f.Version, memoryVersion)
	}
	if err != nil {
		return m, fmt.Errorf("reading what is known of the etcd cluster from %s: %w; a cluster that has gone back will not be noticed this time", path, err)
	}
	m.cluster, m.revision, m.highest, m.behind, m.detail = f.Cluster, f.Revision, f.Highest, f.Behind, f.Detail
	m.recordedRevision = f.Revision
	for to, from := range map[*map[string]map[keys.Epoch]bool]map[string][]keys.Epoch{&m.seen: f.Seen, &m.lost: f.Lost} {
		for link, epochs := range from {
			for _, e := range epochs {
				add(*to, link, e)
			}
		}
	}
	return m, nil
}

func add(to map[string]map[keys.Epoch]bool, link string, e keys.Epoch) {
	if to[link] == nil {
		to[link] = make(map[keys.Epoch]bool)
	}
	to[link][e] = true
}

func remove(from map[string]map[keys.Epoch]bool, link string, e keys.Epoch) bool {
	if !from[link][e] {
		return false
	}
	delete(from[link], e)
	if len(from[link]) == 0 {
		delete(from, link)
	}
	return true
}

// older reports whether an answer is from before what was seen, or from elsewhere.
func (m *memory) older(cluster uint64, revision int64) bool {
	return m.cluster != 0 && (cluster != m.cluster || revision < m.revision)
}

// listed takes a list of all the node's names at a revision. It reports whether the
// cluster has gone back with it.
func (m *memory) listed(cluster uint64, revision int64, have map[string]map[keys.Epoch]bool) (back bool) {
	back = m.older(cluster, revision)
	if back {
		m.detail = fmt.Sprintf("its revision is %d and was %d", revision, m.revision)
		if cluster != m.cluster {
			m.detail = fmt.Sprintf("it is another cluster (%x) than before (%x)", cluster, m.cluster)
		}
		for link, epochs := range m.seen {
			for e := range epochs {
				if !have[link][e] {
					add(m.lost, link, e)
				}
			}
		}
		m.behind, m.dirty = true, true
	}
	for link, epochs := range m.lost {
		for e := range epochs {
			if have[link][e] {
				remove(m.lost, link, e)
				m.dirty = true
			}
		}
		m.prune(link)
	}
	if !maps.EqualFunc(m.seen, have, maps.Equal[map[keys.Epoch]bool, map[keys.Epoch]bool]) {
		m.dirty = true
	}
	m.seen = make(map[string]map[keys.Epoch]bool, len(have))
	for link, epochs := range have {
		m.seen[link] = maps.Clone(epochs)
	}
	if m.cluster != cluster {
		m.cluster, m.dirty = cluster, true
	}
	m.revision = revision
	m.passed()
	return back
}

// prune forgets the oldest of a link's lost epochs.
func (m *memory) prune(link string) {
	if len(m.lost[link]) <= maxLost {
		return
	}
	epochs := slices.SortedFunc(maps.Keys(m.lost[link]), keys.Epoch.Compare)
	for _, e := range epochs[:len(epochs)-maxLost] {
		remove(m.lost, link, e)
	}
	m.dirty = true
}

// passed ends the time behind once the revision is past all that was seen.
func (m *memory) passed() {
	if m.revision > m.highest {
		m.highest = m.revision
		m.dirty = m.dirty || m.behind
		m.behind = false
	}
}

// advanced takes a newer revision of the same cluster.
func (m *memory) advanced(revision int64) {
	if revision > m.revision {
		m.revision = revision
		m.passed()
	}
}

// put takes a value that has appeared, deleted one that has gone: somebody has
// removed it while we looked, so that it is not lost but revoked.
func (m *memory) put(link string, e keys.Epoch) {
	if !m.seen[link][e] {
		add(m.seen, link, e)
		remove(m.lost, link, e)
		m.dirty = true
	}
}

func (m *memory) deleted(link string, e keys.Epoch) {
	a, b := remove(m.seen, link, e), remove(m.lost, link, e)
	m.dirty = m.dirty || a || b
}

// problem says of a link why what is missing is not revoked; empty if all is well.
func (m *memory) problem(link string) string {
	if m.behind {
		return m.detail
	}
	for e := range m.lost[link] {
		newer := false
		for have := range m.seen[link] {
			newer = newer || have.Number > e.Number || have.Number == e.Number && have.Generation > e.Generation
		}
		if !newer {
			return fmt.Sprintf("%s, and epoch %s of link %s is lost", m.detail, e, link)
		}
	}
	return ""
}

// record writes the file if it is time to.
func (m *memory) record(now time.Time, force bool) error {
	if m.path == "" {
		return nil
	}
	if !m.dirty && (m.revision == m.recordedRevision || !force && now.Sub(m.recorded) < recordEvery) {
		return nil
	}
	f := memoryFile{
		Version: memoryVersion, Cluster: m.cluster, Revision: m.revision, Highest: m.highest, Behind: m.behind, Detail: m.detail,
		Seen: sorted(m.seen), Lost: sorted(m.lost),
	}
	text, err := json.MarshalIndent(f, "", " ")
	if err == nil {
		err = os.MkdirAll(dirOf(m.path), 0o700)
	}
	if err == nil {
		err = keyfile.Replace(m.path, append(text, '\n'))
	}
	// Not tried again at once when it fails: a full disk is full for a while.
	m.recorded, m.recordedRevision = now, m.revision
	if err != nil {
		return fmt.Errorf("recording what is known of the etcd cluster in %s: %w", m.path, err)
	}
	m.dirty = false
	return nil
}

func sorted(from map[string]map[keys.Epoch]bool) map[string][]keys.Epoch {
	out := make(map[string][]keys.Epoch, len(from))
	for link, epochs := range from {
		out[link] = slices.SortedFunc(maps.Keys(epochs), keys.Epoch.Compare)
	}
	return out
}

func dirOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "."
}
