// Package etcdtest runs a real etcd cluster on this machine for tests: three members
// as processes of their own, which can be killed, stopped and hung one by one, with a
// CA, client certificates and access control.
//
// It is a Go module of its own, so that etcd's server stays out of what Lever depends
// on. The cluster, the CA and the tests of internal/keys/etcd that need a server
// belong here; what is tested does not, nor does anything that a product would run:
// members do not wait for the disk.
//
// A member is the program itself, started again: call [MemberMain] first thing in
// main, or in TestMain.
package etcdtest
