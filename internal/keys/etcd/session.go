package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
)

const (
	// tick is how often a session asks the watch for a sign of life, and looks at the
	// certificate files.
	tick = time.Second
	// silence is how long the watch may say nothing, although it is asked.
	silence = 3 * time.Second
	// soonest is the least time between two attempts.
	soonest = 100 * time.Millisecond
)

// Errors that end a watch.
var (
	errCompacted = errors.New("the history that was to be watched is compacted")
	errSilent    = fmt.Errorf("nothing was heard of the watch for %s", silence)
	errAgain     = errors.New("the cluster must be listed again")
)

// session is one client with one watch of the node's prefix, which it makes again
// for as long as it lives. It uses etcd's protocol itself, not clientv3.Watcher,
// which mends a watch without a word: whoever must know that nothing was heard would
// not.
type session struct {
	c      *Channel
	client *clientv3.Client
	tls    *transport
	kv     pb.KVClient
	watch  pb.WatchClient

	cancel context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup
	kicks  chan struct{} // list again
	// hurry ends a wait before the next attempt.
	hurry chan struct{}

	// since is when the cluster was lost, err what was last seen of it; both under
	// the channel's mutex, as is grace.
	since time.Time
	err   error
	grace *time.Timer
	// told is whether the loss was logged.
	told bool
}

func newSession(c *Channel) (*session, error) {
	t := newTransport(c.files, c.cfg.Now)
	client, err := dial(c.cfg.Endpoints, t)
	if err != nil {
		return nil, err
	}
	s := &session{c: c, client: client, tls: t, kicks: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	s.kv, s.watch = pb.NewKVClient(client.ActiveConnection()), pb.NewWatchClient(client.ActiveConnection())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// start is called with the channel's mutex held.
func (s *session) start() {
	s.since = s.c.cfg.Now()
	s.grace = time.AfterFunc(s.c.cfg.Grace, s.declare)
	s.done.Go(s.run)
	s.done.Go(s.certificates)
}

// end ends the session and waits until it has.
func (s *session) end() {
	s.cancel()
	s.done.Wait()
	s.c.mu.Lock()
	s.grace.Stop()
	err := s.c.memory.record(s.c.cfg.Now(), true)
	s.c.mu.Unlock()
	if err != nil {
		s.c.cfg.Log.Warn("the etcd channel ends without a record", "error", err)
	}
	_ = s.client.Close()
}

// again has the session list the cluster anew.
func (s *session) again() {
	select {
	case s.kicks <- struct{}{}:
	default: // It will.
	}
}

func (s *session) run() {
	wait := soonest
	for s.ctx.Err() == nil {
		began, listed := time.Now(), false
		err := s.follow(&listed)
		if s.ctx.Err() != nil {
			return
		}
		if listed {
			wait = soonest
		}
		if listed && (errors.Is(err, errCompacted) || errors.Is(err, errAgain)) && time.Since(began) > soonest {
			continue
		}
		s.down(err)
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			wait = min(2*wait, slowest)
		case <-s.hurry:
			timer.Stop()
			wait = soonest
		}
	}
}

// follow lists the node's names and watches from there on, until something is wrong.
func (s *session) follow(listed *bool) error {
	select {
	case <-s.kicks: // That is what happens now.
	default:
	}
	prefix := s.c.names.node(s.c.cfg.Node)
	answer, err := s.get(s.ctx, prefix, true)
	if err != nil {
		return fmt.Errorf("listing %s: %w", prefix, err)
	}
	s.take(answer)
	*listed = true

	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	stream, err := s.watch.Watch(ctx, grpc.WaitForReady(false), grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return fmt.Errorf("watching %s: %w", prefix, err)
	}
	// From the listed revision on, not the one after: etcd gives a watch that has yet
	// to begin no sign of life. What is heard twice changes nothing.
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: answer.Header.Revision, ProgressNotify: true,
	}}})
	if err != nil {
		return fmt.Errorf("watching %s: %w", prefix, err)
	}
	return s.listen(ctx, cancel, stream)
}

// listen takes what the watch tells.
func (s *session) listen(ctx context.Context, cancel context.CancelFunc, stream pb.Watch_WatchClient) error {
	heard, ended := make(chan *pb.WatchResponse), make(chan error, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case heard <- answer:
			case <-ctx.Done():
				return
			}
		}
	})
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	last := time.Now()
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-s.kicks:
			return errAgain
		case err := <-ended:
			return fmt.Errorf("watching: %w", err)
		case answer := <-heard:
			last = time.Now()
			if err := s.hear(answer); err != nil {
				return err
			}
		case <-ticks.C:
			if time.Since(last) > silence {
				return errSilent
			}
			s.remember()
			s.neighbours()
			// Its own goroutine is not needed: a request of a few octets waits for no
			// window unless the server reads nothing, and then the stream ends by itself.
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
				return fmt.Errorf("watching: %w", err)
			}
		}
	}
}

// hear takes one message of the watch.
func (s *session) hear(answer *pb.WatchResponse) error {
	c := s.c
	if answer.CompactRevision != 0 {
		return errCompacted
	}
	if answer.Canceled {
		if strings.Contains(answer.CancelReason, rpctypes.ErrPermissionDenied.Error()) {
			return rpctypes.ErrGRPCPermissionDenied
		}
		return fmt.Errorf("watching: the server has ended it: %s", answer.CancelReason)
	}
	if answer.Created {
		s.back()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ev := range answer.Events {
		at, err := c.names.parse(string(ev.Kv.Key))
		deleted := ev.Type == mvccpb.Event_DELETE
		clear(ev.Kv.Value)
		if at.link == "" {
			continue
		}
		switch {
		case err != nil && deleted:
			delete(c.strange[at.link], string(ev.Kv.Key))
		case err != nil:
			c.noteStrange(at.link, string(ev.Kv.Key))
		case deleted:
			c.memory.deleted(at.link, at.epoch)
		default:
			c.memory.put(at.link, at.epoch)
		}
		c.wake(at.link)
	}
	// The answer to the request to watch has the revision that the server has, not the
	// one up to which everything was told.
	switch n := len(answer.Events); {
	case n > 0:
		c.memory.advanced(answer.Events[n-1].Kv.ModRevision)
	case !answer.Created:
		c.memory.advanced(answer.Header.Revision)
	}
	return nil
}

// noteStrange remembers a name that is none of ours, up to some of each link.
func (c *Channel) noteStrange(link, name string) {
	if len(c.strange[link]) >= maxLost {
		return
	}
	if c.strange[link] == nil {
		c.strange[link] = make(map[string]bool)
	}
	c.strange[link][name] = true
}

// take takes a list of the node's names.
func (s *session) take(answer *pb.RangeResponse) {
	c := s.c
	have := make(map[string]map[keys.Epoch]bool)
	c.mu.Lock()
	c.strange = make(map[string]map[string]bool)
	for _, kv := range answer.Kvs {
		switch at, err := c.names.parse(string(kv.Key)); {
		case err == nil:
			add(have, at.link, at.epoch)
		case at.link != "":
			c.noteStrange(at.link, string(kv.Key))
		}
	}
	back := c.memory.listed(answer.Header.ClusterId, answer.Header.Revision, have)
	detail := c.memory.detail
	c.mu.Unlock()
	if back {
		c.cfg.Log.Error("the etcd cluster has gone back", "detail", detail)
	}
	s.remember()
}

// remember records what is known of the cluster, if it is time to.
func (s *session) remember() {
	s.c.mu.Lock()
	err := s.c.memory.record(s.c.cfg.Now(), false)
	s.c.mu.Unlock()
	if err != nil && !s.told {
		s.told = true
		s.c.cfg.Log.Warn("a cluster that goes back while this node is down will not be noticed", "error", err)
	}
}

// back says that the cluster is there.
func (s *session) back() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.grace.Stop()
	if c.trouble != nil {
		c.cfg.Log.Info("the etcd channel is back", "endpoints", c.cfg.Endpoints, "after", c.cfg.Now().Sub(s.since).Round(time.Second).String())
	}
	c.up, c.trouble, s.err, s.since = true, nil, nil, time.Time{}
	c.others = s.others()
	c.wakeAll()
}

// neighbours looks after the servers that the watch is not on.
func (s *session) neighbours() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if others := s.others(); !slices.Equal(others, s.c.others) {
		s.c.others = others
		s.c.wakeAll()
	}
}

// down says that the cluster is not there, for some reason.
func (s *session) down(err error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.err = err
	if s.since.IsZero() {
		s.since = c.cfg.Now()
		s.grace.Reset(c.cfg.Grace)
	}
	c.up = false
	switch {
	case status.Code(err) == codes.PermissionDenied || errors.Is(err, rpctypes.ErrGRPCPermissionDenied):
		s.say() // that is an answer, and will not change by waiting
	case c.trouble != nil:
		s.say() // the reason may be another one now
	}
}

// declare says that the cluster is out of reach for longer than the grace.
func (s *session) declare() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.ctx.Err() == nil && !s.c.up {
		s.say()
	}
}

// say words the trouble. One reason after the other may come up while servers are
// tried; only another kind of trouble is worth a delivery.
func (s *session) say() {
	c := s.c
	trouble := s.trouble()
	if c.trouble != nil && c.trouble[0].Code == trouble[0].Code {
		return
	}
	c.cfg.Log.Warn("the etcd channel is lost", "code", string(trouble[0].Code), "endpoints", c.cfg.Endpoints, "detail", trouble[0].Detail)
	c.trouble = trouble
	c.wakeAll()
}

// trouble is the finding for what is wrong now: what the servers' connections tell
// if they agree, and else what the last request has met with.
func (s *session) trouble() []keys.Finding {
	f := keys.Finding{Code: health.ChannelUnreachable, Detail: fmt.Sprintf("no answer within %s", s.c.cfg.Grace)}
	if s.err != nil {
		f.Detail = status.Convert(s.err).Message()
	}
	if status.Code(s.err) == codes.PermissionDenied || errors.Is(s.err, rpctypes.ErrGRPCPermissionDenied) {
		f.Code, f.Detail = health.ChannelDenied, fmt.Sprintf("node %s may not read %s", s.c.cfg.Node, s.c.names.node(s.c.cfg.Node))
		return []keys.Finding{f}
	}
	problems := s.tls.state.all()
	for i, server := range slices.Sorted(maps.Keys(problems)) {
		code := classify(problems[server])
		if i == 0 || f.Code == health.ChannelUnreachable && code != f.Code {
			f.Code, f.Detail = code, server+": "+reason(problems[server])
		}
	}
	return []keys.Finding{f}
}

// others are servers that would not have agreed on keys as they must, while another
// one has: with that one gone the channel would be out of reach.
func (s *session) others() (out []keys.Finding) {
	problems := s.tls.state.all()
	for _, server := range slices.Sorted(maps.Keys(problems)) {
		if err := problems[server]; classify(err) == health.ChannelNotHybrid {
			out = append(out, keys.Finding{Code: health.ChannelNotHybrid, Detail: server + ": " + reason(err)})
		}
	}
	return out
}

// certificates looks at the files: a renewed certificate is for the next connection,
// and there is no need to wait for that if there is none.
func (s *session) certificates() {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	seen := s.c.files.signature()
	var due time.Time
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticks.C:
		}
		now := s.c.cfg.Now()
		sign := s.c.files.signature()
		if sign == seen && now.Before(due) {
			continue
		}
		changed := sign != seen
		seen, due = sign, now.Add(10*time.Second)
		findings := s.c.files.findings(now)
		for _, f := range findings {
			if f.Until.After(now) && f.Until.Before(due) {
				due = f.Until
			}
		}
		s.c.mu.Lock()
		down := !s.c.up
		if !slices.Equal(findings, s.c.certificate) {
			s.c.certificate = findings
			s.c.wakeAll()
		}
		s.c.mu.Unlock()
		if changed && down {
			s.client.ActiveConnection().ResetConnectBackoff()
			select {
			case s.hurry <- struct{}{}:
			default:
			}
		}
	}
}
