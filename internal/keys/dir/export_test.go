package dir

import (
	"github.com/fsnotify/fsnotify"

	"github.com/lever-link/lever/internal/keys"
)

// SetDial replaces how a channel opens inotify.
func SetDial(c *Channel, dial func() (*fsnotify.Watcher, error)) { c.hub.dial = dial }

// Issue writes material for the n epochs after the last.
func Issue(root, link string, n int) ([]keys.Epoch, error) {
	last, err := Last(root, link)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for i := range n {
		numbers = append(numbers, last+1+uint64(i))
	}
	done, _, err := IssueNumbers(root, link, numbers)
	return done, err
}
