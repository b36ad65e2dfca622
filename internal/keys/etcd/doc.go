// Package etcd is the channel type etcd: pre-key material as values of an etcd
// cluster, online, pulled and watched over mutual TLS.
//
// The name of a value is <prefix>/nodes/<node>/links/<link>/<number>.<generation>;
// each node of a link has one, all with the same text, and etcd's role-based access
// control lets a node read what is its own and nothing else. Deleting a value
// revokes it. A mark at <prefix>/revoked/<link>/<number>.<generation>, which no node
// reads, keeps a revoked epoch from being issued a second time.
//
// Names and values, the reading channel with its one connection and one watch for
// all links of a node, what it remembers of the cluster, and the issuer's side
// (access, issuing, revoking, listing, verifying, retiring) belong here. A server
// does not: the one for tests is a Go module of its own, etcdtest, so that it stays
// out of the agent. Nor does anything that knows the other channel.
//
// TLS is 1.3 with X25519MLKEM768 and nothing else, so that a recording of the
// connection is of no use to whoever has a quantum computer one day.
//
// Material is erased where this package has it. What gRPC, protocol buffers and the
// TLS stack copy on the way in and out is beyond its reach: their buffers are reused
// or left to the garbage collector, which does not overwrite them. This package
// therefore keeps no material between two deliveries, and reads a link's values
// again when it has to deliver them.
package etcd
