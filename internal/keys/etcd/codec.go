package etcd

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// codec is gRPC's for protocol buffers, and erases the octets of each message when
// they were read, or sent. What gRPC has of its own gives the memory back as it is:
// in half an hour with an epoch a minute an agent collected nearly every value that it
// had ever been given.
//
// Out of its reach are the buffers of TLS and of HTTP/2's frames, one of each a
// connection: they hold what came last, until something else does.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// withCodec has a client use it.
func withCodec() grpc.DialOption { return grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})) }

// Name implements encoding.CodecV2: the name on the wire.
func (codec) Name() string { return "proto" }

// leastPooled is a size from which on gRPC gives a buffer back to its pool (package
// mem's threshold is below), where it is erased.
const leastPooled = 2 << 10

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m := message(v)
	if m == nil {
		return nil, fmt.Errorf("sending a %T, which is no message", v)
	}
	text, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, max(proto.Size(m), leastPooled)), m)
	if err != nil {
		clear(text)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(&text, erasingPool{})}, nil
}

// Unmarshal implements encoding.CodecV2. Nobody reads the data after it: gRPC frees
// it then.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m := message(v)
	if m == nil {
		return fmt.Errorf("receiving a %T, which is no message", v)
	}
	text := data.Materialize() // a copy
	defer clear(text)
	for _, b := range data {
		clear(b.ReadOnlyData())
	}
	return proto.Unmarshal(text, m)
}

// message is nil for what is none.
func message(v any) proto.Message {
	switch m := v.(type) {
	case proto.Message:
		return m
	case protoadapt.MessageV1:
		return protoadapt.MessageV2Of(m)
	}
	return nil
}

// erasingPool erases what is given back, and keeps nothing.
type erasingPool struct{}

var _ mem.BufferPool = erasingPool{}

// Get implements mem.BufferPool.
func (erasingPool) Get(length int) *[]byte { return new(make([]byte, length)) }

// Put implements mem.BufferPool.
func (erasingPool) Put(b *[]byte) { clear((*b)[:cap(*b)]) }
