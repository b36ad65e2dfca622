package agent

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/identity"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/bundle"
	"github.com/lever-link/lever/internal/keys/dir"
	"github.com/lever-link/lever/internal/keys/etcd"
	"github.com/lever-link/lever/internal/keys/etsi014"
	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/keys/skip"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// openChannels makes the inventory's two channels. They share nothing but this
// node's name, and what each keeps on disk lies apart.
func (s *server) openChannels(inv *inventory.Inventory, log *slog.Logger) [2]keys.Channel {
	open := func(side keys.Side, c inventory.Channel) keys.Channel {
		if c.Type == "" {
			return nil
		}
		channel, err := s.openChannel(inv, side, c, log.With("channel", side.String()))
		if err != nil {
			log.Error("a channel cannot be opened", "channel", side.String(), "type", c.Type, "error", err)
			return unopened{c, err}
		}
		return channel
	}
	return [2]keys.Channel{keys.A: open(keys.A, inv.Channels.A), keys.B: open(keys.B, inv.Channels.B)}
}

// channelDir is where a channel keeps what it must remember, none of it in the
// clear.
func (s *server) channelDir(side keys.Side) string {
	return filepath.Join(s.opts.StateDir, "channels", side.String())
}

func (s *server) openChannel(inv *inventory.Inventory, side keys.Side, c inventory.Channel, log *slog.Logger) (keys.Channel, error) {
	state := s.channelDir(side)
	service := keyservice.Options{
		Side: side, Node: s.opts.Node, Nodes: s.nodesOf, Epoch: inv.Policy.CAKEpoch, URL: c.URL, CA: c.CA, Certificate: c.Certificate, Key: c.Key,
		StateDir: state, Now: s.wall, Log: log,
	}
	switch c.Type {
	case "dir":
		return dir.New(c.Path, dir.Options{Log: log}), nil
	case "bundle":
		source := c.Path
		if c.URL != "" {
			source = c.URL
		}
		signers, err := signed.ParsePublicKeys(c.Signers)
		if err != nil {
			return nil, err
		}
		identities := filepath.Join(s.opts.StateDir, identity.Dir)
		return bundle.New(bundle.Config{
			Source: source, CA: c.CA, Node: s.opts.Node, Signers: signers, Threshold: c.Threshold, CacheDir: state,
			Identities:  func() ([]age.Identity, error) { return loadIdentities(identities, log) },
			LinksDigest: s.linksDigest, Now: s.wall, Log: log,
		})
	case "etcd":
		return etcd.New(etcd.Config{
			Endpoints: c.Endpoints, Prefix: c.Prefix, Node: s.opts.Node, Nodes: s.nodesOf, CA: c.CA, Certificate: c.Certificate, Key: c.Key,
			StateFile: filepath.Join(state, "etcd.json"), Now: s.wall, Log: log,
		})
	case "etsi014":
		return etsi014.New(service)
	case "skip":
		return skip.New(service)
	}
	return nil, fmt.Errorf("this Lever knows no channel of type %q", c.Type)
}

// loadIdentities are those that can be used: one that cannot be does not keep the
// others from opening what is sealed to them.
func loadIdentities(dir string, log *slog.Logger) ([]age.Identity, error) {
	ids, err := identity.Load(dir)
	if len(ids) > 0 && err != nil {
		log.Warn("an identity of this node cannot be used", "error", err)
		err = nil
	}
	return ids, err
}

// nodesOf are the nodes on a link of this node's by the inventory in force, nil if
// there is no such link.
func (s *server) nodesOf(link string) []string {
	inv := s.inForce.Load()
	links, err := inv.ForNode(s.opts.Node)
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.ID == link {
			return nodesOn(l.Link)
		}
	}
	return nil
}

// linksDigest is what the issuer must have known of this node.
func (s *server) linksDigest() string {
	var links []bundle.LinkSpec
	mine, err := s.inForce.Load().ForNode(s.opts.Node)
	if err != nil {
		return ""
	}
	for _, l := range mine {
		if l.Keyed() {
			links = append(links, bundle.LinkSpec{ID: l.ID, Nodes: nodesOn(l.Link)})
		}
	}
	return bundle.LinksDigest(s.opts.Node, links)
}

func nodesOn(l *inventory.Link) (nodes []string) {
	for _, e := range l.Ends {
		if !e.External {
			nodes = append(nodes, e.Node)
		}
	}
	return nodes
}

// unopened is a channel that cannot be opened, which is a fault of each link and no
// reason to leave alone what stands.
type unopened struct {
	inventory.Channel
	err error
}

// Kind implements keys.Channel.
func (u unopened) Kind() string { return u.Type }

// Where implements keys.Channel.
func (u unopened) Where(string) string { return u.Position.String() }

// Watch implements keys.Channel.
func (u unopened) Watch(ctx context.Context, link string, deliver func(keys.Snapshot)) error {
	deliver(keys.Snapshot{Where: u.Where(link), Unavailable: true, Findings: []keys.Finding{{Code: health.ChannelUnreachable, Detail: u.err.Error()}}})
	<-ctx.Done()
	return nil
}
