package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lever-link/lever/mka"
)

// linksDir holds a file a link in the run directory.
const linksDir = "links"

// linkFile is what the run directory knows of a link: what `lever down` must
// remove when no agent runs, and what a restarted agent resumes from. There is
// nothing secret in it. A reboot empties the run directory together with the
// kernel state that it describes.
type linkFile struct {
	Version   int         `json:"version"`
	Link      string      `json:"link"`
	Interface string      `json:"interface"`
	Secure    string      `json:"secure_interface"`
	MKA       *mka.Record `json:"mka,omitempty"`
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
	write:  func(path string, text []byte) error { return os.WriteFile(path, text, 0o600) },
	rename: os.Rename, remove: os.Remove,
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
