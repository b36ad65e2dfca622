package inventory

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFile bounds what is read of one file, so that a wrong path given to Load
// ends in an error and not in the machine's memory. 100,000 links take 30 MiB.
const maxFile = 64 << 20

// Option changes how an inventory is read.
type Option func(*options)

type options struct{ now time.Time }

// WithNow gives the time at which verdicts are judged, instead of the clock's.
func WithNow(now time.Time) Option { return func(o *options) { o.now = now } }

// Load reads an inventory: one file, or every *.yaml and *.yml in a directory
// (not in directories below it), merged. The error is of type [Errors] and holds
// every mistake in all of the files.
func Load(path string, opts ...Option) (*Inventory, error) {
	var found findings
	files := listFiles(path, &found)
	var docs []document
	for _, f := range files {
		data, err := readFile(f)
		if err != nil {
			found.errs = append(found.errs, fileError(f, "reading the inventory", err))
			continue
		}
		docs = append(docs, document{file: f, data: data})
	}
	return build(docs, &found, opts)
}

// Parse reads an inventory from memory. Positions and relative paths are given
// as if the data were in the file called name; nothing is read from disk.
func Parse(name string, data []byte, opts ...Option) (*Inventory, error) {
	return build([]document{{file: name, data: data}}, &findings{}, opts)
}

// document is one file's content.
type document struct {
	file string
	data []byte
}

// build decodes the documents into one inventory and checks it as a whole.
func build(docs []document, found *findings, opts []Option) (*Inventory, error) {
	o := options{}
	for _, opt := range opts {
		opt(&o)
	}
	if o.now.IsZero() {
		o.now = time.Now()
	}
	inv := &Inventory{Policy: Policy{CAKEpoch: defaultEpoch, MaxAge: maxAgeEpochs * defaultEpoch}, Sites: map[string]*Site{}, Nodes: map[string]*Node{}}
	d := decoder{findings: found, inv: inv}
	complete := len(found.errs) == 0
	for _, doc := range docs {
		inv.Files = append(inv.Files, doc.file)
		if !d.document(doc) {
			complete = false
		}
	}
	d.finishPolicy()
	inv.PolicyAt = d.policyAt
	// A file that could not be parsed would make every name that it defines
	// unknown: the rules wait until it can.
	if complete {
		c := checker{findings: found, inv: inv, now: o.now, channelsBroken: d.channelsBroken}
		c.run()
	}
	found.sort()
	if len(found.errs) > 0 {
		return nil, found.errs
	}
	inv.Warnings = found.warnings
	inv.index()
	return inv, nil
}

// listFiles returns the files that path stands for, sorted.
func listFiles(path string, found *findings) []string {
	info, err := os.Stat(path)
	if err != nil {
		found.errs = append(found.errs, fileError(path, "opening the inventory", err))
		return nil
	}
	if !info.IsDir() {
		return []string{path}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		found.errs = append(found.errs, fileError(path, "listing the inventory's directory", err))
		return nil
	}
	var files []string
	for _, e := range entries {
		// Hidden files are what editors leave behind.
		ext := filepath.Ext(e.Name())
		if ext != ".yaml" && ext != ".yml" || strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		name := filepath.Join(path, e.Name())
		// To open a pipe may take for ever; one that is no file at all says so when it is read.
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			found.errorf(Position{File: name}, "it is not a regular file (%v): keep it out of the inventory's directory", info.Mode())
			continue
		}
		files = append(files, name)
	}
	if len(files) == 0 && len(found.errs) == 0 {
		found.errorf(Position{File: path}, "the directory has no *.yaml or *.yml file: give the inventory's file or its directory")
	}
	slices.Sort(files)
	return files
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("it is larger than %d MiB: split it into several files in one directory", maxFile>>20)
	}
	return data, nil
}

// fileError says what the operating system found, without the path that the
// position names already.
func fileError(file, attempt string, err error) Error {
	msg := err.Error()
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		msg = pe.Err.Error()
	}
	return Error{Position: Position{File: file}, Msg: attempt + ": " + msg, cause: err}
}
