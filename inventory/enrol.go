package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Enrol adds a recipient to a node in the file where the node stands, and returns
// that file, or nothing when there was nothing to change. The first recipient sets
// the list and the next is put behind it; replace leaves only the given one. What
// else is in the file stays as it is, comments and layout included.
//
// The inventory is read and checked as [Load] does, before and with the change; if
// it would not load, nothing is written. The file is replaced as a whole, and with
// its mode. Two enrolments at a time wait for each other.
func Enrol(path, node, recipient string, replace bool) (changedFile string, err error) {
	if why := NotRecipient(recipient); why != "" {
		return "", fmt.Errorf("enrolling node %s: the recipient %s", node, why)
	}
	unlock, err := lockFiles(path)
	if err != nil {
		return "", fmt.Errorf("enrolling node %s: waiting for others who write the inventory: %w", node, err)
	}
	defer unlock()
	files, err := ReadFiles(path)
	if err != nil {
		return "", err
	}
	changed, err := enrol(files, node, recipient, replace)
	if err != nil || changed.Name == "" {
		return "", err
	}
	if err := replaceFile(changed.Name, files[indexOf(files, changed.Name)].Data, changed.Data); err != nil {
		return "", fmt.Errorf("enrolling node %s: %w", node, err)
	}
	return changed.Name, nil
}

// enrol returns the file that changes, as it is to be; a File without a name when
// none has to.
func enrol(files []File, node, recipient string, replace bool) (File, error) {
	inv, err := ParseFiles(files)
	if err != nil {
		return File{}, err
	}
	n := inv.Nodes[node]
	if n == nil {
		return File{}, fmt.Errorf("enrolling node %q: the inventory (%s) has no such node%s", node, describeFiles(inv.Files), hint(node, inv.Nodes))
	}
	for _, other := range keysOf(inv.Nodes) {
		if o := inv.Nodes[other]; other != node && slices.Contains(o.Recipients, recipient) {
			return File{}, fmt.Errorf("enrolling node %s: %s: this recipient is that of node %s; take it from lever node show on %s itself", node, o.Position, other, node)
		}
	}
	want := []string{recipient}
	if !replace {
		if slices.Contains(n.Recipients, recipient) {
			return File{}, nil
		}
		if want = append(slices.Clone(n.Recipients), recipient); len(want) > maxRecipients {
			return File{}, fmt.Errorf("enrolling node %s: %s: it has %d recipients already, one and its successor: leave only the new one with --replace, after material was issued to it",
				node, n.Position, len(n.Recipients))
		}
	}
	if slices.Equal(n.Recipients, want) {
		return File{}, nil
	}
	i := indexOf(files, n.File)
	data, err := editRecipients(files[i].Data, node, want)
	if err != nil {
		return File{}, fmt.Errorf("enrolling node %s: %s: %w", node, n.Position, err)
	}
	changed := File{Name: n.File, Data: data}
	after := slices.Clone(files)
	after[i] = changed
	if _, err := ParseFiles(after); err != nil {
		return File{}, fmt.Errorf("enrolling node %s: nothing was changed, since the inventory would not be in order with this recipient:\n%w", node, err)
	}
	return changed, nil
}

func indexOf(files []File, name string) int {
	return slices.IndexFunc(files, func(f File) bool { return f.Name == name })
}

// replaceFile puts new content in the place of old, such that a crash leaves one or
// the other. A symbolic link stays one: what it points to is replaced.
func replaceFile(name string, old, data []byte) (err error) {
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	// Load does not take a name with a dot in front for part of the inventory.
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	// Whoever may not give the file to its owner keeps it: that is no loss.
	if err = keepOwner(f, info); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err = f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	now, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, old) {
		return fmt.Errorf("%s was changed by somebody else meanwhile, so it was left alone: try again", name)
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
