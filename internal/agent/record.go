package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// linksDir holds a file a link in the run directory.
const linksDir = "links"

// linkFile is what the run directory knows of a link: what `lever down` must
// remove when no agent runs, and what a restarted agent resumes from. There is
// nothing secret in it. A reboot empties the run directory together with the
// kernel state that it describes.
//
// A file can be put back: from a copy, or a snapshot of what it is on. What is in it
// would be true of an earlier time, and the numbers be used twice that were used
// since. So each record has a greater generation than the last, and the link's
// device, which lives and dies with the SAs that the record is about, says in its
// alias (IFLA_IFALIAS) which was the last.
type linkFile struct {
	Version    int    `json:"version"`
	Generation uint64 `json:"generation"`
	Link       string `json:"link"`
	Interface  string `json:"interface"`
	Index      int    `json:"ifindex"` // of the interface: another one of its name has nothing of the link
	Secure     string `json:"secure_interface"`
	// SCI of the device. One that is made anew keeps it, though the interface may have
	// another address by now: to the far end another SCI is another member.
	SCI macsec.SCI `json:"sci"`
	Up  bool       `json:"up,omitempty"` // the device carried traffic
	// SetUpOn is the interface on which the link was set up: that it is down now is an
	// order, unless Held says that the agent has set it down itself.
	SetUpOn int  `json:"set_up_on,omitempty"`
	Held    bool `json:"held,omitempty"`
	// Fence is how lever status looks at the fence when no agent runs.
	Fence *FenceStatus `json:"fence,omitempty"`
	// Edition is that of the fence's filters (fence.Options.Edition). An agent of another
	// version replaces them, and nobody has changed them.
	Edition string      `json:"edition,omitempty"`
	MKA     *mka.Record `json:"mka,omitempty"`
	// Removed: the inventory no longer had the link, and the fence was left closed.
	Removed bool `json:"removed,omitempty"`
}

const linkFileVersion = 1

func linkPath(runDir, link string) string {
	return filepath.Join(runDir, linksDir, link+".json")
}

// files is how what the run directory holds comes there, in calls of which each
// happens or does not: a test lets the agent die between any two.
type files struct {
	write  func(path string, text []byte) error
	rename func(from, to string) error
	remove func(path string) error
	// replace is how the state directory is written; nil: durably, by rename.
	replace func(path string, text []byte) error
}

var osFiles = files{
	write: func(path string, text []byte) error {
		err := os.WriteFile(path, text, 0o600)
		if errors.Is(err, fs.ErrNotExist) { // there was no room for its directory
			if err = os.Mkdir(filepath.Dir(path), 0o700); err == nil {
				err = os.WriteFile(path, text, 0o600)
			}
		}
		return err
	},
	rename: os.Rename, remove: os.Remove,
}

// fenced says whether filters as this version makes them by o were left in place.
func (f *linkFile) fenced(o fence.Options) bool {
	return f.Fence != nil && f.Fence.options() == o && f.Edition == o.Edition()
}

// readLinkFile returns nil without an error when there is none.
func readLinkFile(runDir, link string) (*linkFile, error) {
	b, err := os.ReadFile(linkPath(runDir, link))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of link %s: %w", link, err)
	}
	var f linkFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read the record of link %s: %w", link, err)
	}
	if f.Version != linkFileVersion || f.Link != link {
		return nil, fmt.Errorf("read the record of link %s: it is version %d of link %q", link, f.Version, f.Link)
	}
	return &f, nil
}

// write replaces the link's file at once: a crash leaves the old one or the
// new one. The directory is a tmpfs, so there is nothing to sync.
func (f *linkFile) write(on files, runDir string) error {
	f.Version = linkFileVersion
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write the record of link %s: %w", f.Link, err)
	}
	path := linkPath(runDir, f.Link)
	tmp := path + ".new"
	if err := on.write(tmp, append(b, '\n')); err != nil {
		return fmt.Errorf("write the record of link %s: %w", f.Link, err)
	}
	if err := on.rename(tmp, path); err != nil {
		return fmt.Errorf("write the record of link %s: %w", f.Link, err)
	}
	return nil
}

const markText = "lever: record %d of link %s"

// marked is the generation in the alias of a device of the link.
func marked(alias, link string) (generation uint64, err error) {
	if alias == "" {
		return 0, errors.New("the device has no mark of it")
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(alias, "lever: record "), " ")
	if generation, err = strconv.ParseUint(number, 10, 64); err != nil || alias != fmt.Sprintf(markText, generation, link) {
		return 0, fmt.Errorf("the device is marked %q", alias)
	}
	return generation, nil
}

// hold notes, before the agent sets the link's interface down, that this will be its own
// doing: an interface that an operator has set down stays so.
func (t *task) hold(index int) {
	if p, err := t.server.platform.findIndex(index); err == nil && !p.up && !t.held {
		return // it is somebody else's already
	}
	again := t.held // and what could not be recorded may be by now
	t.held, t.file.Held = true, true
	f, err := readLinkFile(t.server.opts.RunDir, t.link.ID)
	if err == nil && f != nil && !f.Held {
		f.Held = true
		err = f.write(t.server.platform.files, t.server.opts.RunDir)
	}
	if err != nil && !again {
		t.log.Warn("that the agent holds the interface down could not be recorded: after a restart it will not set it up", "interface", t.parent.name, "error", err)
	}
}

// ordered says whether the link's interface is down by somebody's order.
func (t *task) ordered(p parent, old *linkFile) bool {
	return !p.up && old != nil && old.SetUpOn == p.index && !old.Held && !t.held
}

// keep stores the link's record, and has the device vouch for it. In this order:
// whoever dies in between has used nothing of the last record, and the one before it is
// as good. If it cannot be stored the device says so as well, by a mark that no record
// has.
func (t *task) keep() error {
	on := &t.server.platform
	t.file.Generation++
	t.file.Up = t.everUp
	err := t.file.write(on.files, t.server.opts.RunDir)
	if mark := on.setAlias(t.device.Index, fmt.Sprintf(markText, t.file.Generation, t.link.ID)); mark != nil {
		err = errors.Join(err, fmt.Errorf("mark the record of link %s on %s: %w", t.link.ID, t.device.Name, mark))
	}
	return err
}

// checkMark has the device vouch for the record again if somebody has given it
// another alias, and stores a record for which there was no room.
func (t *task) checkMark(now time.Time) {
	if t.faults.Has(health.RunDirUnwritable) {
		t.persist(t.file.MKA)
		return
	}
	text, err := t.server.platform.alias(t.device.Index)
	if err != nil || text == fmt.Sprintf(markText, t.file.Generation, t.link.ID) {
		return
	}
	t.drifted(health.SecYDrift, "alias changed", fmt.Sprintf("to %q", text), now)
	t.persist(t.file.MKA)
}

// recall begins the link's record with what an earlier agent left, if there is that,
// unless it is not certain to be the last that was written. Then the link is a new
// member, which costs the far end a fresh SAK, and nobody a frame.
func (t *task) recall(old *linkFile) {
	t.file = linkFile{Link: t.link.ID, Interface: t.link.Local.Interface, Index: t.parent.index, SetUpOn: t.parent.index, Secure: t.device.Name, SCI: t.device.SCI, Fence: fenceStatus(t.fenceOptions()), Edition: t.fenceOptions().Edition()}
	text, err := t.server.platform.alias(t.device.Index)
	if err == nil {
		t.file.Generation, err = marked(text, t.link.ID)
	}
	switch last := t.file.Generation; {
	case old == nil || old.MKA == nil:
		return
	case err != nil:
	case old.Generation != last && old.Generation != last+1:
		err = fmt.Errorf("it is number %d, and there was a number %d", old.Generation, last)
	default:
		t.file.Generation, t.file.MKA = old.Generation, old.MKA
		return
	}
	if old.Index == t.parent.index && text != "" && t.file.Generation == 0 {
		t.drifted(health.SecYDrift, "alias changed", fmt.Sprintf("to %q, while no agent ran", text), t.began)
	}
	t.file.Generation = max(old.Generation, t.file.Generation)
	t.log.Warn("the record is of no use: negotiating afresh", "device", t.device.Name, "error", err)
}
