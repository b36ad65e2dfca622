package pae

import "golang.org/x/sys/unix"

// Dropped is how many frames of each lane the kernel has dropped since Open,
// because the lane's queue was full. What no lane takes is not counted.
func (c *Conn) Dropped() [Lanes]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l, s := range c.lanes {
		_ = s.use(func(fd int) error {
			// To read it sets it back (packet_getsockopt).
			st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err == nil {
				c.dropped[l] += uint64(st.Drops)
			}
			return err
		})
	}
	return c.dropped
}
