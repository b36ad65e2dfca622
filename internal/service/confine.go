package service

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Paths are what an agent opens while it runs.
type Paths struct {
	Read  []string // files and directories: the inventory, channels, key files
	Write []string // directories: run and state, made if they are missing and can be
	// Devices are read and written: a TPM, if the node's identity is sealed to one.
	Devices []string
}

// A Confinement is what Landlock lets this process open. The zero value, and nil,
// is one of a kernel without Landlock: nothing is outside it.
type Confinement struct {
	abi        int
	read, both []string // with their symbolic links resolved
}

// The rights that Landlock gives out one by one. Executing a file is in neither
// set, nor is making devices, symbolic links and pipes.
const (
	mayRead  = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	mayWrite = mayRead | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSTruncate|ll.AccessFSMakeReg|ll.AccessFSMakeDir|
		ll.AccessFSMakeSock|ll.AccessFSRemoveFile|ll.AccessFSRemoveDir)
	mayReadFile = landlock.AccessFSSet(ll.AccessFSReadFile)
)

// zones are read when the first time is printed, which may be late.
const zones = "/usr/share/zoneinfo"

// Confine lets the process open nothing any more but the paths given, on a kernel
// that has Landlock; on others it does nothing and says so.
//
// A file is allowed by the directory that it is in, and so is a directory, so that
// both may be replaced by a rename while the agent runs. In / and its immediate
// directories, which hold other things as well, the path itself is allowed and a
// replacement is not.
//
// The rules hold for as long as the process lives. An inventory that comes later
// and names paths elsewhere needs a restart of the agent, which Admit says.
func Confine(p Paths, log *slog.Logger) *Confinement {
	var write []string
	for _, dir := range p.Write {
		if err := os.MkdirAll(dir, 0o700); err != nil { // as on a disk that is full, which is no reason to leave links alone
			log.Error("a directory of the agent's cannot be made, and stays out of reach", "path", dir, "error", err, "next", "make it, then restart the agent, which loses no frame")
			continue
		}
		write = append(write, dir)
	}
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		log.Info("files are not confined: this kernel has no Landlock", "error", err)
		return nil
	}
	c := &Confinement{abi: abi}
	for _, path := range p.Read {
		c.read = append(c.read, reaches(path)...)
	}
	for _, path := range write {
		c.both = append(c.both, resolve(path))
	}
	rules := []landlock.Rule{landlock.PathAccess(mayRead, zones).IgnoreIfMissing()}
	if _, err := os.Stat("/etc/localtime"); err == nil {
		rules = append(rules, landlock.PathAccess(mayReadFile, resolve("/etc/localtime")))
	}
	for _, path := range c.read {
		access := mayRead
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			access = mayReadFile
		}
		rules = append(rules, landlock.PathAccess(access, path).IgnoreIfMissing())
	}
	for _, path := range c.both {
		rules = append(rules, landlock.PathAccess(mayWrite, path))
	}
	for _, path := range p.Devices {
		rules = append(rules, landlock.PathAccess(mayReadFile|landlock.AccessFSSet(ll.AccessFSWriteFile), path).IgnoreIfMissing())
	}
	// ABI 5 is files alone, up to ioctl on devices; what is newer is about sockets,
	// of which the agent needs its own kinds.
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		log.Warn("a hardening measure is not in force", "measure", "files confined by Landlock", "error", err)
		return nil
	}
	log.Info("files confined by Landlock", "abi", abi, "read", c.read, "write", c.both)
	if err := c.Admit(p.Read...); err != nil {
		log.Warn("what the inventory names is not there, and will be out of reach when it is", "error", err)
	}
	return c
}

// Admit returns an error that names those of paths which this process may not
// read, and what to do.
func (c *Confinement) Admit(paths ...string) error {
	if c == nil || c.abi == 0 {
		return nil
	}
	var out []string
	for _, path := range paths {
		if !c.covers(path) {
			out = append(out, path)
		}
	}
	if out == nil {
		return nil
	}
	return fmt.Errorf("%s: the agent confined itself at its start to what its inventory named then: restart it (systemctl restart lever), which loses no frame",
		strings.Join(out, ", "))
}

// covers tells whether path lies where the process may read. One that is not
// there yet is as good as the directory that it would be in.
func (c *Confinement) covers(path string) bool {
	path = resolve(path)
	return slices.ContainsFunc(slices.Concat(c.read, c.both), func(root string) bool { return within(path, root) })
}

func within(path, root string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// reaches are the paths to allow so that path can be read now and when it was
// replaced: where it stands, and where its symbolic links lead.
func reaches(path string) []string {
	var all []string
	for _, p := range []string{absolute(path), resolve(path)} {
		if dir := filepath.Dir(p); deep(dir) {
			p = dir
		}
		// Of a tree that is not there yet, the part that is: a rule needs something
		// that it can hold on to.
		for missing(p) && deep(filepath.Dir(p)) {
			p = filepath.Dir(p)
		}
		if !missing(p) && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// deep tells a directory below an immediate one of /.
func deep(dir string) bool { return strings.Count(filepath.Clean(dir), "/") >= 2 }

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// absolute fails only where there is no working directory, and then a relative
// path leads nowhere either.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Clean(path)
}

// resolve follows symbolic links, of what is there of path.
func resolve(path string) string {
	path = absolute(path)
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(resolve(dir), filepath.Base(path))
	}
	return path
}
