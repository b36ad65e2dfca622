package etcdtest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// memberEnv is set in a process that is to be a member.
const memberEnv = "LEVER_ETCDTEST_MEMBER"

// memberConfig is what a member must know.
type memberConfig struct {
	Name, Dir, Log string
	// URLs; HTTP is for requests that are not gRPC, which etcd wants apart.
	Client, Peer, HTTP string
	Cluster            string
	CA                 string
	Pair               Pair
	// Classical has it agree on keys by X25519 and the NIST curves only.
	Classical bool
}

// MemberMain makes this process a member of a cluster if it was started as one, and
// does not return then. A member lives until it is killed or its standard input ends.
func MemberMain() {
	text := os.Getenv(memberEnv)
	if text == "" {
		return
	}
	if err := runMember(text); err != nil {
		fmt.Fprintln(os.Stderr, "etcd member:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runMember(text string) error {
	var m memberConfig
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("reading %s: %w", memberEnv, err)
	}
	if m.Classical {
		if err := os.Setenv("GODEBUG", "tlsmlkem=0,tlssecpmlkem=0"); err != nil {
			return err
		}
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel, c.LogOutputs = m.Name, m.Dir, "warn", []string{m.Log}
	for to, from := range map[*[]url.URL]string{
		&c.ListenClientUrls: m.Client, &c.AdvertiseClientUrls: m.Client,
		&c.ListenPeerUrls: m.Peer, &c.AdvertisePeerUrls: m.Peer, &c.ListenClientHttpUrls: m.HTTP,
	} {
		u, err := url.Parse(from)
		if err != nil {
			return err
		}
		*to = []url.URL{*u}
	}
	c.InitialCluster, c.InitialClusterToken = m.Cluster, "lever"
	c.ClientTLSInfo = transport.TLSInfo{
		CertFile: m.Pair.Certificate, KeyFile: m.Pair.Key, TrustedCAFile: m.CA, ClientCertAuth: true, MinVersion: tls.VersionTLS13,
	}
	c.PeerTLSInfo = c.ClientTLSInfo
	// The gateway's own certificate would have to be no user's; nobody needs it here.
	c.EnableGRPCGateway = false
	// A killed process loses nothing that it has written: there is no need to wait for
	// the disk, which tests have not to themselves.
	c.UnsafeNoFsync = true
	e, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("starting %s: %w", m.Name, err)
	}
	defer e.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-e.Server.ReadyNotify():
		fmt.Println("ready")
	case err := <-e.Err():
		return err
	case <-ended:
		return nil
	}
	select {
	case err := <-e.Err():
		return err
	case <-ended:
		return nil
	}
}
