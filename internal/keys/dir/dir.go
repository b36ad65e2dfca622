// Package dir is the channel type dir: pre-key material as files that somebody
// or something puts into a directory.
//
// The layout is <path>/<link id>/<epoch>.<generation>.key, one file a key, mode
// 0600, 64 hexadecimal digits and a newline, appearing by rename. Removing a file
// revokes it. Reading, watching, issuing and revoking such files belong here;
// how they travel between machines does not, nor does anything that knows the
// other channel.
package dir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

const (
	suffix  = ".key"
	revoked = ".revoked"
)

// format is what a key file holds.
var format = keyfile.Format{Sizes: []int{32}}

// FileName is the name of an epoch's key file within its link's directory.
func FileName(e keys.Epoch) string { return e.String() + suffix }

// tombstone is the name of the mark that a revoked epoch leaves, so that its
// number is not issued a second time with other material.
func tombstone(e keys.Epoch) string { return "." + e.String() + revoked }

// parseTombstone reads what tombstone writes.
func parseTombstone(name string) (keys.Epoch, bool) {
	base, ok := strings.CutSuffix(name, revoked)
	e, err := keys.ParseEpoch(strings.TrimPrefix(base, "."))
	return e, ok && err == nil && name == tombstone(e)
}

// ignored names are no key files and no findings either: files on their way in,
// and marks of ours.
func ignored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".tmp")
}

// Entry is one file that has the name of a key file.
type Entry struct {
	Epoch    keys.Epoch
	File     string
	Mode     fs.FileMode
	Modified time.Time
	// Material is empty when Err is set. It belongs to the caller.
	Material keys.Material
	// Err is why the file is refused.
	Err error
}

// Listing is the directory of one link as it was found.
type Listing struct {
	// Where is the directory's path.
	Where string
	// Entries are the key files, oldest epoch first.
	Entries []Entry
	// Unexpected are the paths of other files, and why they are none.
	Unexpected map[string]error
	// Err is why the directory as a whole could not be read. A link's directory
	// that does not exist is empty, as long as the channel's own one is there.
	Err error
}

// Scan reads the directory of a link beneath a channel's root.
func Scan(root, link string) Listing {
	l := Listing{Where: filepath.Join(root, link)}
	if err := keys.ValidLink(link); err != nil {
		l.Err = err
		return l
	}
	// The root may be a symbolic link: it is the operator's own path. What lies
	// beneath it is written by the channel and may not.
	info, err := os.Stat(root)
	if err == nil {
		err = keyfile.CheckDir(root, info)
	}
	if err != nil {
		l.Err = err
		return l
	}
	info, err = os.Lstat(l.Where)
	if errors.Is(err, fs.ErrNotExist) {
		return l
	}
	if err == nil {
		err = keyfile.CheckDir(l.Where, info)
	}
	if err != nil {
		l.Err = err
		return l
	}
	names, err := os.ReadDir(l.Where)
	if err != nil {
		l.Err = err
		return l
	}
	for _, n := range names {
		l.add(n)
	}
	slices.SortFunc(l.Entries, func(a, b Entry) int { return a.Epoch.Compare(b.Epoch) })
	return l
}

func (l *Listing) add(n fs.DirEntry) {
	name := n.Name()
	if ignored(name) {
		return
	}
	path := filepath.Join(l.Where, name)
	base, ok := strings.CutSuffix(name, suffix)
	var epoch keys.Epoch
	err := errors.New("its name does not end in " + suffix)
	if ok {
		epoch, err = keys.ParseEpoch(base)
	}
	if err != nil {
		if l.Unexpected == nil {
			l.Unexpected = make(map[string]error)
		}
		l.Unexpected[path] = err
		return
	}
	e := Entry{Epoch: epoch, File: path}
	if info, err := os.Lstat(path); err == nil {
		e.Mode, e.Modified = info.Mode(), info.ModTime()
	}
	key, err := keyfile.Read(path, format)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Removed between listing and opening: it is not there.
		return
	case err != nil:
		e.Err = err
	default:
		e.Material = keys.Material{KeyID: epoch.String(), Key: key, File: path}
	}
	l.Entries = append(l.Entries, e)
}

// Erase overwrites the material.
func (l Listing) Erase() {
	for _, e := range l.Entries {
		e.Material.Key.Erase()
	}
}

// Snapshot hands the listing's material and findings to a Ring.
func (l Listing) Snapshot() keys.Snapshot {
	s := keys.Snapshot{Where: l.Where, Keys: make(map[keys.Epoch]keys.Material), Present: make(map[keys.Epoch]bool)}
	if l.Err != nil {
		s.Unavailable = true
		s.Findings = append(s.Findings, keys.Finding{Code: health.ChannelUnreadable, Detail: reason(l.Err)})
		return s
	}
	for _, e := range l.Entries {
		if e.Err == nil {
			s.Keys[e.Epoch] = e.Material
			continue
		}
		s.Present[e.Epoch] = true
		s.Findings = append(s.Findings, keys.Finding{Code: code(e.Err), Epoch: e.Epoch, File: e.File, Detail: reason(e.Err)})
	}
	for path, err := range l.Unexpected {
		s.Findings = append(s.Findings, keys.Finding{Code: health.KeyFileUnexpected, File: path, Detail: err.Error()})
	}
	slices.SortFunc(s.Findings, func(a, b keys.Finding) int { return cmp.Compare(a.File, b.File) })
	return s
}

func code(err error) health.Code {
	var permission *keyfile.PermissionError
	var malformed *keyfile.FormatError
	switch {
	case errors.As(err, &permission):
		return health.KeyFilePermissions
	case errors.As(err, &malformed):
		return health.KeyFileMalformed
	}
	return health.KeyFileUnreadable
}

// reason is an error without the path, which a finding has already.
func reason(err error) string {
	var permission *keyfile.PermissionError
	var malformed *keyfile.FormatError
	var path *fs.PathError
	switch {
	case errors.As(err, &permission):
		return permission.Reason
	case errors.As(err, &malformed):
		return malformed.Reason
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.As(err, &path):
		return path.Err.Error()
	}
	return err.Error()
}

// Problem is what a listing's Err or an Entry's Err says, without the path.
func Problem(err error) string { return reason(err) }

// Links are the ids of the links that have a directory beneath root, sorted.
func Links(root string) ([]string, error) {
	names, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("listing the links of a channel: %w", err)
	}
	var links []string
	for _, n := range names {
		if n.IsDir() && !ignored(n.Name()) {
			links = append(links, n.Name())
		}
	}
	return links, nil
}

// signature is the cheap view of a link's directory that the rescan compares:
// no file is opened. Equal signatures mean that nothing was renamed in, removed,
// rewritten or given other permissions.
func signature(root, link string) string {
	var b strings.Builder
	note := func(name string, info fs.FileInfo, err error) {
		if err != nil {
			fmt.Fprintf(&b, "%q %s\n", name, reason(err))
			return
		}
		fmt.Fprintf(&b, "%q %v %d %d", name, info.Mode(), info.Size(), info.ModTime().UnixNano())
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, " %d %d %d", st.Dev, st.Ino, st.Uid)
		}
		b.WriteByte('\n')
	}
	info, err := os.Stat(root)
	note("", info, err)
	dir := filepath.Join(root, link)
	info, err = os.Lstat(dir)
	note(".", info, err)
	names, err := os.ReadDir(dir)
	if err != nil {
		note("..", nil, err)
	}
	for _, n := range names {
		if !ignored(n.Name()) {
			info, err := n.Info()
			note(n.Name(), info, err)
		}
	}
	return b.String()
}
