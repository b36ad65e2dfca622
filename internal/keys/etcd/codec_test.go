package etcd

import (
	"bytes"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
)

// Messages go through as they are, in as many pieces as gRPC likes, and leave
// nothing of themselves in what gRPC has.
func TestCodecErases(t *testing.T) {
	value := []byte("a value that is a secret")
	for _, size := range []int{1, 100, 10_000} {
		sent, err := codec{}.Marshal(&pb.RangeResponse{Count: 7, Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: bytes.Repeat(value, size)}}})
		if err != nil {
			t.Fatal(err)
		}
		wire := sent.Materialize()
		out := sent[0].ReadOnlyData()
		sent.Free()
		if bytes.Contains(out, value) {
			t.Errorf("%d: what was sent is still there", size)
		}
		var data mem.BufferSlice
		for piece := range slices.Chunk(wire, 1000) {
			data = append(data, mem.SliceBuffer(piece))
		}
		var got pb.RangeResponse
		if err := (codec{}).Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if got.GetCount() != 7 || !bytes.Equal(got.GetKvs()[0].GetValue(), bytes.Repeat(value, size)) {
			t.Errorf("%d: it is another message", size)
		}
		if bytes.Contains(wire, value) {
			t.Errorf("%d: what was received is still there", size)
		}
	}
	if _, err := (codec{}).Marshal("text"); err == nil {
		t.Error("a text is no message")
	}
	if err := (codec{}).Unmarshal(nil, 7); err == nil {
		t.Error("a number is no message")
	}
	if err := (codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer("\xff\xff")}, new(pb.RangeResponse)); err == nil {
		t.Error("garbage is no message")
	}
}
