package etcd

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	// slowest is the most time between two attempts to connect, or to list.
	slowest = 2 * time.Second
	// patience is how long a request may take.
	patience = 3 * time.Second
)

// checkEndpoints reports what is wrong with the members' URLs.
func checkEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return errors.New("the etcd channel has no endpoints: name its members, such as https://10.0.0.1:2379")
	}
	for _, e := range endpoints {
		if u, err := url.Parse(e); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.User != nil {
			return fmt.Errorf("etcd endpoint %q: it must be like https://10.0.0.1:2379", e)
		}
	}
	return nil
}

// dial makes a client, which connects by itself. Nothing is sent before it is used.
func dial(endpoints []string, t *transport) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints,
		// What the client would log is in the errors, and in findings.
		Logger: zap.NewNop(),
		// gRPC pings no more often than every ten seconds, and etcd wants no more than
		// one in five; a session has pings of its own on the watch. But with this the
		// kernel ends a connection on which octets stay unacknowledged for as long.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: patience,
		MaxUnaryRetries:      1,
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(t),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: slowest},
				MinConnectTimeout: patience,
			}),
			// No proxy of the environment: a key's way is what the inventory says.
			grpc.WithNoProxy(),
			withCodec(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making an etcd client for %q: %w", endpoints, err)
	}
	return client, nil
}
