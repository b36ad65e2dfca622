package macsectest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/lever-link/lever/macsec"
)

// Operation is one call of a method of macsec.Kernel. What the method does not
// take is zero.
type Operation struct {
	// Op is the method, one of macsec.Op….
	Op string
	// Index and Interface name the device; of CreateDevice and Device the name
	// alone.
	Index     int
	Interface string
	Parent    int
	SCI       *macsec.SCI
	AN        *macsec.AN
	Active    *bool
	Config    *macsec.DeviceConfig
	// SA is without its key.
	SA           *macsec.SA
	SAUpdate     *macsec.SAUpdate
	DeviceUpdate *macsec.DeviceUpdate
	Offload      *macsec.Offload
	// Err is what the caller got; in the journal only.
	Err error
}

// reads says that the operation changes nothing: hooks and journal leave it out.
func (o Operation) reads() bool {
	switch o.Op {
	case macsec.OpDevice, macsec.OpDevices, macsec.OpSecY, macsec.OpSecYs:
		return true
	}
	return false
}

// String is one line for a script of expected operations:
// "AddTxSA eth0-sec an=1 active=true pn=1".
func (o Operation) String() string {
	b := []string{o.Op}
	add := func(format string, v any) { b = append(b, fmt.Sprintf(format, v)) }
	if o.Interface != "" {
		add("%s", o.Interface)
	}
	if o.SCI != nil {
		add("sci=%s", *o.SCI)
	}
	if o.AN != nil {
		add("an=%d", *o.AN)
	}
	if o.Active != nil {
		add("active=%t", *o.Active)
	}
	if o.SA != nil {
		add("active=%t", o.SA.Active)
		add("pn=%d", o.SA.NextPN)
	}
	if u := o.SAUpdate; u != nil {
		opt(add, "active=%t", u.Active)
		opt(add, "pn=%d", u.NextPN)
	}
	if u := o.DeviceUpdate; u != nil {
		opt(add, "encrypt=%t", u.Encrypt)
		opt(add, "protect=%t", u.Protect)
		opt(add, "sci=%t", u.IncludeSCI)
		opt(add, "es=%t", u.EndStation)
		opt(add, "scb=%t", u.SCB)
		opt(add, "validate=%s", u.Validate)
		opt(add, "replay=%t", u.ReplayProtect)
		opt(add, "window=%d", u.ReplayWindow)
		opt(add, "encoding=%d", u.EncodingAN)
		opt(add, "up=%t", u.Up)
	}
	if o.Config != nil {
		add("%s", o.Config.CipherSuite)
	}
	if o.Offload != nil {
		add("offload=%s", *o.Offload)
	}
	if o.Err != nil {
		add("failed: %v", errors.Unwrap(o.Err))
	}
	return strings.Join(b, " ")
}

func opt[T any](add func(string, any), format string, v *T) {
	if v != nil {
		add(format, *v)
	}
}

// public is sa without its secrets.
func public(sa macsec.SA) *macsec.SA {
	sa.Key, sa.Salt = macsec.Key{}, macsec.Salt{}
	return &sa
}

// hooks have their own lock: they run outside that of the kernel's state, so
// that they may look at it.
type hooks struct {
	mu      sync.Mutex
	faults  []fault
	before  func(Operation) error
	after   func(Operation) error
	journal []Operation
}

type fault struct {
	op   string
	left int
	err  error
}

// Fail makes the next n calls of the method op (macsec.Op…, or "" for any) fail
// with err and do nothing; a negative n means all from now on. The error comes
// wrapped in a *macsec.Error like one of the kernel.
func (k *Kernel) Fail(op string, n int, err error) {
	k.hooks.mu.Lock()
	defer k.hooks.mu.Unlock()
	k.hooks.faults = append(k.hooks.faults, fault{op, n, err})
}

// Recover forgets all faults of Fail.
func (k *Kernel) Recover() {
	k.hooks.mu.Lock()
	defer k.hooks.mu.Unlock()
	k.hooks.faults = nil
}

// Before installs a function that runs before each call that changes something;
// if it fails, the call fails with that and does nothing: the caller died first.
// It may read from the kernel; a change that it makes runs it again.
func (k *Kernel) Before(f func(Operation) error) {
	k.hooks.mu.Lock()
	defer k.hooks.mu.Unlock()
	k.hooks.before = f
}

// After installs a function that runs after each call that changed something; if
// it fails, the caller gets that although the work is done: the answer was lost.
// It may read from the kernel; a change that it makes runs it again.
func (k *Kernel) After(f func(Operation) error) {
	k.hooks.mu.Lock()
	defer k.hooks.mu.Unlock()
	k.hooks.after = f
}

// Journal is every call that changes something, failed ones too, in the order in
// which they took effect.
func (k *Kernel) Journal() []Operation {
	k.hooks.mu.Lock()
	defer k.hooks.mu.Unlock()
	return slices.Clone(k.hooks.journal)
}

// ResetJournal empties the journal.
func (k *Kernel) ResetJournal() {
	k.hooks.mu.Lock()
	defer k.hooks.mu.Unlock()
	k.hooks.journal = nil
}

// injected is the error of the first fault that concerns op.
func (h *hooks) injected(op string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.faults {
		f := &h.faults[i]
		if f.left != 0 && (f.op == op || f.op == "") {
			if f.left > 0 {
				f.left--
			}
			return f.err
		}
	}
	return nil
}

func (h *hooks) run(f func(*hooks) func(Operation) error, o Operation) error {
	h.mu.Lock()
	hook := f(h)
	h.mu.Unlock()
	if hook == nil || o.reads() {
		return nil
	}
	return hook(o)
}

// do runs an operation: f under the lock, everything around it outside.
func (k *Kernel) do(o Operation, f func() error) error {
	k.mu.Lock()
	if d := k.devices[o.Index]; d != nil {
		o.Interface = d.Name
	}
	k.mu.Unlock()
	err := k.hooks.run(func(h *hooks) func(Operation) error { return h.before }, o)
	if err == nil {
		err = k.hooks.injected(o.Op)
	}
	k.mu.Lock()
	if err == nil {
		err = f()
	}
	if err != nil {
		err = o.failed(err)
	}
	at := k.hooks.record(o, err)
	k.mu.Unlock()
	if err != nil {
		return err
	}
	if err := k.hooks.run(func(h *hooks) func(Operation) error { return h.after }, o); err != nil {
		err = o.failed(err)
		k.hooks.amend(at, err)
		return err
	}
	return nil
}

// failed wraps the cause as the client does.
func (o Operation) failed(cause error) error {
	return &macsec.Error{Op: o.Op, Interface: o.Interface, Index: o.Index, SCI: o.SCI, AN: o.AN, Err: cause}
}

func (h *hooks) record(o Operation, err error) int {
	if o.reads() {
		return -1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o.Err = err
	h.journal = append(h.journal, o)
	return len(h.journal) - 1
}

func (h *hooks) amend(at int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at >= 0 && at < len(h.journal) {
		h.journal[at].Err = err
	}
}
