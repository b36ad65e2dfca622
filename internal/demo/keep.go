package demo

import (
	"context"
	"github.com/lever-link/lever/internal/lab"
	"strings"
)

// kept says how to look at what goes on running. In a guest, nobody can go in:
// it shows the agents' own view and waits for the end.
func (d *demo) kept(ctx context.Context) {
	t := d.tell
	t.line("")
	if d.Inside {
		for _, r := range d.routers {
			out, err := r.Lever(ctx, "status")
			if err != nil {
				t.say("%v", err)
				continue
			}
			t.line("$ lever status    # on " + r.Name)
			t.line(strings.TrimRight(string(out), "\n"))
			t.line("")
		}
		t.say("The guest and both agents run until Ctrl-C. It has no terminal of its own: to look around inside, run lever demo --keep as root on a machine whose kernel has MACsec.")
		<-ctx.Done()
		return
	}
	t.say("The routers and their agents run on. To look at them:")
	commands := []string{}
	for _, r := range d.routers {
		commands = append(commands, d.binary+" status --run-dir "+r.Path(lab.RunDir))
	}
	first := d.routers[0]
	if hasProgram("ip") {
		commands = append(commands,
			"ip netns exec "+first.Space.Name+" ip -s macsec show",
			"ip netns exec "+first.Space.Name+" ping "+d.ends[1].Addresses[0].Addr().String())
	}
	if hasProgram("tcpdump") {
		commands = append(commands, "ip netns exec "+first.Space.Name+" tcpdump -eni "+d.ends[0].Interface)
	}
	commands = append(commands, "tail "+first.Path(lab.LogFile))
	for _, c := range commands {
		t.line("    " + c)
	}
	t.say("And to end it:")
	var names []string
	for _, ns := range d.spaces {
		names = append(names, ns.Name)
	}
	t.line("    for n in " + strings.Join(names, " ") + "; do ip netns pids $n | xargs -r kill; ip netns del $n; done")
	t.line("    rm -r " + d.dir)
}
