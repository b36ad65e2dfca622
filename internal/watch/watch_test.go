package watch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// changes are the ways in which editors and deployments change files. Each is done
// to path, a file or a directory as it says.
var changes = []struct {
	name   string
	before func(t *testing.T, root string) (path string)
	change func(t *testing.T, root string)
}{
	{"a file renamed over another", aFile, func(t *testing.T, root string) { put(t, root+"/lever.yaml", "two") }},
	{"a file written in place", aFile, func(t *testing.T, root string) { do(t, os.WriteFile(root+"/lever.yaml", []byte("one"), 0o600)) }},
	{"a file that goes", aFile, func(t *testing.T, root string) { do(t, os.Remove(root+"/lever.yaml")) }},
	{"a file that comes", func(_ *testing.T, root string) string { return root + "/lever.yaml" },
		func(t *testing.T, root string) { put(t, root+"/lever.yaml", "one") }},
	{"the same times and size", aFile, func(t *testing.T, root string) {
		info, err := os.Stat(root + "/lever.yaml")
		do(t, err)
		put(t, root+"/lever.yaml", "eno")
		do(t, os.Chtimes(root+"/lever.yaml", info.ModTime(), info.ModTime()))
	}},
	{"a file in a directory", aDirectory, func(t *testing.T, root string) { put(t, root+"/lever.d/a.yaml", "two") }},
	{"a new file in a directory", aDirectory, func(t *testing.T, root string) { put(t, root+"/lever.d/c.yml", "two") }},
	{"a directory replaced", aDirectory, func(t *testing.T, root string) {
		do(t, os.Mkdir(root+"/next", 0o700))
		put(t, root+"/next/a.yaml", "two")
		do(t, os.Rename(root+"/lever.d", root+"/last"))
		do(t, os.Rename(root+"/next", root+"/lever.d"))
	}},
	{"a symbolic link turned to another file", func(t *testing.T, root string) string {
		put(t, root+"/one.yaml", "one")
		put(t, root+"/two.yaml", "two")
		do(t, os.Symlink("one.yaml", root+"/lever.yaml"))
		return root + "/lever.yaml"
	}, func(t *testing.T, root string) {
		do(t, os.Symlink("two.yaml", root+"/lever.yaml.new"))
		do(t, os.Rename(root+"/lever.yaml.new", root+"/lever.yaml"))
	}},
	{"the file behind a symbolic link", func(t *testing.T, root string) string {
		do(t, os.Mkdir(root+"/elsewhere", 0o700))
		put(t, root+"/elsewhere/one.yaml", "one")
		do(t, os.Symlink("elsewhere/one.yaml", root+"/lever.yaml"))
		return root + "/lever.yaml"
	}, func(t *testing.T, root string) { put(t, root+"/elsewhere/one.yaml", "two") }},
	{"a mounted configuration", func(t *testing.T, root string) string {
		for _, v := range []string{"1", "2"} { // as Kubernetes mounts a ConfigMap
			do(t, os.MkdirAll(root+"/m/.."+v, 0o700))
			put(t, root+"/m/.."+v+"/lever.yaml", v)
		}
		do(t, os.Symlink("..1", root+"/m/..data"))
		do(t, os.Symlink("..data/lever.yaml", root+"/m/lever.yaml"))
		return root + "/m/lever.yaml"
	}, func(t *testing.T, root string) {
		do(t, os.Symlink("..2", root+"/m/..data.new"))
		do(t, os.Rename(root+"/m/..data.new", root+"/m/..data"))
	}},
}

func aFile(t *testing.T, root string) string {
	put(t, root+"/lever.yaml", "one")
	return root + "/lever.yaml"
}

func aDirectory(t *testing.T, root string) string {
	do(t, os.Mkdir(root+"/lever.d", 0o700))
	put(t, root+"/lever.d/a.yaml", "one")
	put(t, root+"/lever.d/b.yaml", "one")
	return root + "/lever.d"
}

// TestSettledWithoutInotify finds every change by looking, once, when it has settled.
func TestSettledWithoutInotify(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			path := c.before(t, root)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				changed := make(chan struct{}, 8)
				go Settled(ctx, path, Signature(path), nil, changed)
				time.Sleep(time.Minute)
				if len(changed) != 0 {
					t.Errorf("%d changes of what did not change", len(changed))
				}
				c.change(t, root)
				time.Sleep(Rescan + Settles + time.Millisecond)
				if len(changed) != 1 {
					t.Errorf("%d changes were seen, want one", len(changed))
				}
				time.Sleep(time.Minute)
				if len(changed) != 1 {
					t.Errorf("one change was seen %d times", len(changed))
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// TestSettledWaitsForTheLastFile writes one file after the other.
func TestSettledWaitsForTheLastFile(t *testing.T) {
	root := t.TempDir()
	path := aDirectory(t, root)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changed := make(chan struct{}, 8)
		go Settled(ctx, path, Signature(path), nil, changed)
		for i := range 50 {
			put(t, filepath.Join(path, "a.yaml"), string(rune('a'+i)))
			time.Sleep(Settles / 3)
		}
		if len(changed) != 0 {
			t.Error("it was judged half written")
		}
		time.Sleep(Rescan + 2*Settles)
		if len(changed) != 1 {
			t.Errorf("%d changes were seen, want one", len(changed))
		}
		cancel()
		synctest.Wait()
	})
}

// TestNotifyKicks waits for inotify to tell of each change, and of a second one,
// by which time what is watched may be another inode.
func TestNotifyKicks(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			path := c.before(t, root)
			ctx, cancel := context.WithCancel(t.Context())
			kicks := make(chan struct{}) // each is waited for
			ended := make(chan struct{})
			go func() { notifyAll(ctx, path, kicks); close(ended) }()
			<-kicks // it watches
			seen := Signature(path)
			c.change(t, root)
			for Signature(path) == seen {
				<-kicks
			}
			<-kicks
			cancel()
			<-ended
		})
	}
}

// notifyAll is Notify with kicks that are not lost when nobody waits for them.
func notifyAll(ctx context.Context, path string, kicks chan<- struct{}) {
	inner := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() { Notify(ctx, path, slog.New(slog.DiscardHandler), inner); close(done) }()
	for {
		select {
		case <-inner:
			select {
			case kicks <- struct{}{}:
			case <-done:
				return
			}
		case <-done:
			return
		}
	}
}

func TestDirectoriesOfALoop(t *testing.T) {
	root := t.TempDir()
	do(t, os.Symlink("b.yaml", root+"/a.yaml"))
	do(t, os.Symlink("a.yaml", root+"/b.yaml"))
	if got := directories(root + "/a.yaml"); !slices.Equal(got, []string{root}) {
		t.Errorf("directories %q", got)
	}
}
