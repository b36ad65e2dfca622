// Package demo shows Lever at work on one machine: two routers' agents on an
// untrusted link, in five acts, each with what it measured. It is also the
// acceptance test of the whole: every claim that falls short is a failure.
//
// The routers are network namespaces, the link is a veth pair, and the agents
// are processes of the lever binary, used through its command line alone, as an
// operator would. Where the machine's own kernel will not do, the demo runs
// itself again in user-mode Linux.
//
// What belongs here: building that small world, the acts, and their telling.
// What does not: the laboratory itself (internal/lab), anything that agents
// need, and finding kernels (internal/uml).
package demo

import (
	"context"
	"errors"
	"fmt"
	"github.com/lever-link/lever/internal/lab"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/uml"
	"github.com/lever-link/lever/inventory"
)

// Options is how to run the demo.
type Options struct {
	// Binary is the lever executable, as an absolute path.
	Binary string
	// Keep leaves the routers and agents running at the end.
	Keep bool
	// Pcap is the file to write the capture to; empty for none.
	Pcap string
	// Inside is set on a kernel that the host's demo has found: no other is
	// looked for.
	Inside bool
	// Kernel is what to say about the kernel when Inside.
	Kernel string
	// Colour allows a terminal's escape sequences.
	Colour bool
	// Stdout gets the narration, Stderr what else there is to say.
	Stdout, Stderr io.Writer
	// Signals ask the demo to end; it then cleans up. A second one ends a guest
	// at once.
	Signals <-chan os.Signal
}

// ErrShort is returned when the demo ran and did not show all it claims. The
// narration has said what.
var ErrShort = errors.New("the demo fell short of what it claims")

// ErrInterrupted is returned when a signal ended the demo.
var ErrInterrupted = errors.New("interrupted")

// Run runs the demo: here if this kernel has MACsec and we are root, else in a
// guest. The error is nil only if every claim held.
func Run(ctx context.Context, o Options) error {
	if o.Inside {
		return inside(ctx, o)
	}
	kernel, err := uml.Find()
	if err != nil {
		return err
	}
	o.Kernel = kernel.String()
	if kernel.Native {
		return inside(ctx, o)
	}
	return outside(ctx, o)
}

// A demo is a run of it on a kernel with MACsec.
type demo struct {
	Options
	tell    *teller
	dir     string // on a tmpfs; holds everything
	binary  string
	inv     *inventory.Inventory
	secured *inventory.Link
	left    *inventory.Link // inside, left alone
	ends    [2]inventory.End
	routers [2]*lab.Router
	spaces  []*lab.Netspace
	wire    *lab.Capture
	pcap    *os.File
	began   time.Time

	// bareAnswers is how many of pings plain pings were answered on the link
	// before the agents started.
	bareAnswers int
	// streamed is what the acts with a stream have accounted for.
	streamed int
}

// An act returns an error when the story cannot go on; what merely falls short
// of a claim goes to the teller.
type act struct {
	name string
	play func(*demo, context.Context) error
}

var acts = []act{
	{"The verdicts", (*demo).verdicts},
	{"Secured", (*demo).secure},
	{"On the wire", (*demo).onTheWire},
	{"New keys under traffic", (*demo).newKeys},
	{"An agent killed", (*demo).agentKilled},
}

// inside is the demo on a kernel with MACsec.
func inside(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.Signals != nil {
		go func() {
			select {
			case <-o.Signals:
				cancel(ErrInterrupted)
			case <-ctx.Done():
			}
		}()
	}
	d := &demo{Options: o, tell: &teller{w: o.Stdout, colour: o.Colour}, began: time.Now()}
	keep := false
	defer func() { err = errors.Join(err, d.close(keep)) }()

	d.tell.title("lever demo: two routers, one untrusted link")
	d.tell.say("on %s", o.Kernel)
	if err := d.build(ctx); err != nil {
		return fmt.Errorf("build the routers: %w", err)
	}
	for i, a := range acts {
		d.tell.begin(i+1, a.name)
		if err := a.play(d, ctx); err != nil {
			if interrupted := context.Cause(ctx); interrupted != nil {
				return interrupted
			}
			d.tell.claim(false, "broken off", "%v", err)
			break
		}
	}
	held := d.conclude()
	if o.Keep {
		d.kept(ctx)
		keep = !o.Inside // a guest ends with us
	}
	if !held {
		return ErrShort
	}
	return nil
}

// conclude sums up, and where something fell short says how to look further.
func (d *demo) conclude() bool {
	t := d.tell
	t.line("")
	took := time.Since(d.began).Seconds()
	if len(t.short) == 0 {
		t.line(t.style("32;1", fmt.Sprintf("All %d claims held, in %.0f s: %s packets under rekeys and a crash, none lost.",
			t.claims, took, grouped(d.streamed))))
		return true
	}
	t.line(t.style("31;1", fmt.Sprintf("%d of %d claims fell short, in %.0f s:", len(t.short), t.claims, took)))
	for _, s := range t.short {
		t.item(markShort, s)
	}
	for _, r := range d.routers {
		if r == nil {
			continue
		}
		t.line("")
		t.say("The last lines of %s's agent:", r.Name)
		lines := r.LastLines(15)
		for _, l := range lines { // as they are: wrapped, nobody could search for them
			t.line(strings.Repeat(" ", labelAt) + l)
		}
		if len(lines) == 0 {
			t.say("(it has said nothing)")
		}
	}
	t.line("")
	t.say("To look further: lever demo --keep --pcap demo.pcap leaves the routers running and the capture for tshark or Wireshark.")
	return false
}

// build makes the routers' world: namespaces, wires, directories, keys; and
// starts the capture. No agent runs yet.
func (d *demo) build(ctx context.Context) error {
	if err := d.makeDir(); err != nil {
		return err
	}
	if err := d.readInventory(); err != nil {
		return err
	}
	if err := d.makeNetwork(); err != nil {
		return err
	}
	for _, channel := range channels {
		if err := d.issue(ctx, channel); err != nil {
			return err
		}
		if err := d.deliver(channel); err != nil {
			return err
		}
	}
	// The control experiment: on the bare link the same ping is answered.
	var err error
	if d.bareAnswers, err = d.plainPing(ctx); err != nil {
		return err
	}
	var pcap io.Writer
	if d.Pcap != "" {
		if d.pcap, err = os.Create(d.Pcap); err != nil {
			return fmt.Errorf("write the capture: %w", err)
		}
		pcap = d.pcap
	}
	// From here on whatever is plain counts, also what comes before the fence:
	// nothing is sent on the bare link any more, and IPv6 is off there.
	d.wire, err = lab.StartCapture(d.routers[0].Space, d.ends[0].Interface, pcap)
	return err
}

// demoDir is where everything is; a fixed place, so that what --keep leaves can
// be found.
const demoDir = "/run/lever-demo"

func (d *demo) makeDir() error {
	if err := os.Mkdir(demoDir, 0o700); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already, from a demo that was kept or killed: end its agents and namespaces as that demo said, then rm -r %[1]s", demoDir)
	} else if err != nil {
		return err
	}
	d.dir = demoDir
	d.binary = d.Binary
	if !d.Inside {
		return nil
	}
	// The host's file system is slow to read from in a guest, and the binary is
	// started a dozen times.
	d.binary = filepath.Join(d.dir, "lever")
	return lab.CopyExecutable(d.binary, d.Binary)
}

// close takes everything down, or with keep lets go of it.
func (d *demo) close(keep bool) error {
	var errs []error
	if d.wire != nil {
		errs = append(errs, d.wire.Stop())
	}
	if d.pcap != nil {
		errs = append(errs, d.pcap.Close())
	}
	for _, r := range d.routers {
		if r != nil {
			errs = append(errs, r.Close(keep))
		}
	}
	for _, n := range d.spaces {
		errs = append(errs, n.Close(!keep))
	}
	if d.dir != "" && !keep {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

// outside runs the demo in a guest.
func outside(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const guestPcap = "/tmp/demo.pcap"
	args := []string{o.Binary, "demo", "--inside"}
	job := uml.Job{Stdout: o.Stdout, Stderr: o.Stderr}
	if o.Keep {
		args = append(args, "--keep")
	}
	if o.Colour {
		args = append(args, "--colour")
	}
	if o.Pcap != "" {
		// Better to hear now than in half a minute that it cannot be written.
		f, err := os.OpenFile(o.Pcap, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("write the capture: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("write the capture: %w", err)
		}
		args = append(args, "--pcap", guestPcap)
		job.Results = map[string]string{guestPcap: o.Pcap}
	}
	job.Args = append(args, "--kernel", o.Kernel)
	if o.Signals != nil {
		forward := make(chan os.Signal, 1)
		job.Signals = forward
		go func() {
			// The first one asks the guest's demo to end, the second does not ask.
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case s := <-o.Signals:
					if n > 0 {
						cancel(ErrInterrupted)
						return
					}
					forward <- s
				}
			}
		}()
	}
	res, err := uml.Run(ctx, job)
	switch {
	case err != nil:
		return err
	case res.ExitCode == ExitShort:
		return ErrShort
	case res.ExitCode == ExitInterrupted:
		return ErrInterrupted
	case res.ExitCode != 0:
		return fmt.Errorf("the demo in the guest ended with exit status %d", res.ExitCode)
	}
	return nil
}

// Exit statuses of `lever demo`, by which the guest's tells the host's how it
// ended; any other failure is 1.
const (
	ExitShort       = 3
	ExitInterrupted = 130
)

// ExitCode is the exit status for what Run returned.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrInterrupted):
		return ExitInterrupted
	case errors.Is(err, ErrShort):
		return ExitShort
	}
	return 1
}

// hasProgram reports whether a program is installed, for what to recommend.
func hasProgram(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
