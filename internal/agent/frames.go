package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/mka"
)

// publishEvery is how soon the status shows what frames changed quietly, such
// as a counter or a fault's age; a change of state shows at once.
const publishEvery = 500 * time.Millisecond

// receive gives an MKPDU to the Port and says whether the status can wait: a
// flood must not cost more than its decoding.
func (t *task) receive(frame []byte) (quiet bool) {
	t.step(mka.Event{Kind: mka.EventFrame, Frame: frame})
	return !t.news && time.Since(t.published) < publishEvery
}

// read passes MKPDUs to the task.
func (t *task) read(ctx context.Context, conn mkaConn, frames chan<- []byte, broken chan<- error) {
	buf := make([]byte, 2048)
	for {
		n, err := conn.ReadFrame(buf)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, pae.ErrDown) {
			continue // the next read waits until it is up again, or gone
		}
		if err != nil {
			select {
			case broken <- fmt.Errorf("receive MKPDUs on %s: %w", t.link.Local.Interface, err):
			default:
			}
			return
		}
		select {
		case frames <- append([]byte(nil), buf[:n]...):
		case <-ctx.Done():
			return
		}
	}
}
