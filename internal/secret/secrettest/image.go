package secrettest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	page  = 4 << 10
	chunk = 1 << 20
	// shadow is a size that no memory of Lever's has: the race detector keeps
	// terabytes, of what was accessed and not of what was there.
	shadow = 1 << 31
)

// Process reads all memory of a process that can be read: its heap, its stacks,
// its data and what files it has mapped. The caller must be allowed to, as root
// is.
func (s *Search) Process(pid int) (*Image, error) { return s.read(fmt.Sprintf("/proc/%d", pid)) }

// Self is Process for the caller.
func (s *Search) Self() (*Image, error) { return s.read("/proc/self") }

func (s *Search) read(proc string) (*Image, error) {
	// Not of the heap: what was read would be found again in the buffer.
	buf, err := unix.Mmap(-1, 0, chunk+longest, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("make room to search %s: %w", proc, err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	if err := unix.Madvise(buf, unix.MADV_DONTDUMP); err != nil { // a region of its own then
		return nil, fmt.Errorf("make room to search %s: %w", proc, err)
	}
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return nil, fmt.Errorf("see what memory %s has: %w", proc, err)
	}
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return nil, fmt.Errorf("open the memory of %s: %w", proc, err)
	}
	defer func() { _ = mem.Close() }()
	image := &Image{found: map[string]map[string]int{}}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		// "from-to permissions offset device inode [path]", proc_pid_maps(5).
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			return nil, fmt.Errorf("a line of the maps of %s is %q", proc, lines.Text())
		}
		var from, to uint64
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
			return nil, fmt.Errorf("a line of the maps of %s is %q: %w", proc, lines.Text(), err)
		}
		place := "anonymous memory"
		if len(fields) > 5 {
			place = strings.Join(fields[5:], " ")
		}
		// The kernel's own pages in every process cannot be read in this way.
		if fields[1][0] != 'r' || to-from > shadow || strings.HasPrefix(place, "[v") || from == uint64(uintptr(unsafe.Pointer(&buf[0]))) {
			continue
		}
		if err := s.region(image, mem, buf, from, to, place); err != nil {
			return nil, fmt.Errorf("read %q of %s: %w", lines.Text(), proc, err)
		}
		image.Regions++
	}
	return image, nil
}

// region reads memory from and to, which may go away meanwhile.
func (s *Search) region(image *Image, mem io.ReaderAt, buf []byte, from, to uint64, place string) error {
	var zeros [page]byte
	for ; from < to; from += chunk {
		n, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-from)], int64(from))
		if errors.Is(err, unix.EIO) && n == 0 {
			return nil // unmapped, or a device's
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.EIO) {
			return err
		}
		b := buf[:n]
		image.Octets += min(n, chunk)
		for at := 0; at < min(n, chunk); at += page {
			part := b[at:min(len(b), at+page+longest)]
			if bytes.Equal(part[:min(len(part), page)], zeros[:min(len(part), page)]) {
				continue // most of a heap was never used
			}
			s.in(part, page, func(f form) {
				if image.found[f.name] == nil {
					image.found[f.name] = map[string]int{}
				}
				image.found[f.name][f.in+" in "+place]++
			})
		}
	}
	return nil
}
