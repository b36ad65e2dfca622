package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/identity"
	"github.com/lever-link/lever/internal/metrics"
	"github.com/lever-link/lever/internal/quiet"
	"github.com/lever-link/lever/internal/service"
	"github.com/lever-link/lever/inventory"
)

func newAgentCommand() *cobra.Command {
	var o agent.Options
	var metricsAt string
	cmd := &cobra.Command{
		Use:   "agent --inventory FILE|DIR --node NODE",
		Short: "Keep this node's links encrypted",
		Long: `Keep this node's links encrypted, as the inventory demands.

The agent closes the fence on each link that leaves physical control, makes its
MACsec device, takes keys from both channels, agrees with the far end by MKA, and
only then lets traffic flow. When it stops, or is killed, the encrypted path
stays: start it again and it goes on without losing a frame. To remove a link's
encryption, use lever down.

What changes in the inventory's files takes effect at once, link by link; lever
check --diff shows beforehand what that will be. SIGHUP has them read again in any
case. An inventory with mistakes changes nothing and is a fault.

It needs CAP_NET_ADMIN and CAP_NET_RAW, gives up everything else, and logs to
standard error. There is one agent in a network namespace. The Debian package has
it run by systemd as lever.service.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			out := quiet.NewWriter(os.Stderr) // whoever reads the log must not stop the agent
			defer func() { _ = out.Close() }()
			o.Log = slog.New(slog.NewTextHandler(out, nil))
			return serve(ctx, o, metricsAt)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Inventory, "inventory", "", "inventory file or directory")
	f.StringVar(&o.Node, "node", "", "the inventory's name of this node")
	f.StringVar(&o.RunDir, "run-dir", agent.DefaultRunDir, "directory on a tmpfs: control socket and what a restart resumes from")
	f.StringVar(&o.StateDir, "state-dir", agent.DefaultStateDir, "directory on disk: which epochs must never come back")
	f.StringVar(&metricsAt, "metrics", "", "serve Prometheus metrics at HOST:PORT or unix:PATH, under /metrics; off by default")
	_ = cmd.MarkFlagRequired("inventory")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

// serve runs the agent as a service: first it gives up what it does not need, and
// what it opens later is what the inventory names now.
func serve(ctx context.Context, o agent.Options, metricsAt string) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP) // from the start: unhandled, it would end the process
	defer signal.Stop(reload)
	o.Reload = reload
	service.Harden(o.Log)
	paths, err := agent.FirstPaths(o)
	if err != nil {
		return err
	}
	if err := service.CheckPrivileges(); err != nil {
		return err
	}
	release, err := service.Hold(service.Holder{PID: os.Getpid(), Node: o.Node, RunDir: o.RunDir}, o.Log)
	if err != nil {
		return err
	}
	defer release()
	if metricsAt != "" {
		m, err := metrics.Listen(ctx, metricsAt, o.Log)
		switch {
		case errors.Is(err, metrics.ErrMalformed):
			return err
		case err != nil: // the address may be free, or its name known, tomorrow; links are not to wait for it
			o.Log.Error("metrics are not served", "error", err, "next", metricsNext(err))
		default:
			defer func() { _ = m.Close() }()
			o.Observe = m.Serve
		}
	}
	confined := service.Confine(service.Paths{
		Read: append(paths, o.Inventory), Write: []string{o.RunDir, o.StateDir},
		Devices: identity.Devices(filepath.Join(o.StateDir, identity.Dir)),
	}, o.Log)
	manager := service.NewNotifier(o.Log)
	o.Admit, o.Reloading = confined.Admit, manager.Reloading
	defer context.AfterFunc(ctx, manager.Stopping)()
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	var watch sync.Once
	o.Ready = func(alive func(context.Context) error) {
		manager.Ready()
		watch.Do(func() {
			go manager.Watch(watched, alive)
			go func() {
				_ = agent.NewClient(o.RunDir).Watch(watched, func(st agent.Status) error { manager.Status(summary(st)); return nil })
			}()
		})
	}
	return agent.Run(ctx, o)
}

// metricsNext is what to do about an address at which nobody can listen now.
func metricsNext(err error) string {
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		return "lever.service allows no IP: use unix:/run/lever/metrics.sock, or the drop-in /usr/share/doc/lever/examples/tcp.conf"
	}
	if _, refused := errors.AsType[syscall.Errno](err); !refused { // a host's name, or what is at a path
		return "name an address that needs no name server, or a path where nothing is, then restart the agent, which loses no frame"
	}
	return "look at what has the address (ss -lntxp), then restart the agent, which loses no frame"
}

// summary is what systemctl status says of the agent.
func summary(st agent.Status) string {
	secured, must := 0, 0
	for _, l := range st.Links {
		if l.Verdict == inventory.Encrypt.String() {
			must++
		}
		if l.State == agent.StateSecured {
			secured++
		}
	}
	return fmt.Sprintf("%d of %d links that must be encrypted are secured", secured, must)
}
