package dir

import "github.com/fsnotify/fsnotify"

// SetDial replaces how a channel opens inotify.
func SetDial(c *Channel, dial func() (*fsnotify.Watcher, error)) { c.hub.dial = dial }
