// Package keyservice is what the channels have in common whose material comes from
// a key service: a system beside each node that makes keys together with the one
// beside the far node, and gives each of them out by its id.
//
// What belongs here: the schedule of a link's epochs, which end asks for a key, how
// the key's id comes to the far end (Message, Courier), keys that are given once and
// may be lost, the HTTPS client with its faults, and answers as messages of faults.
// It is no channel. What does not belong: the fields of one protocol, which are in
// internal/keys/etsi014 and internal/keys/skip, and the frames in which messages
// travel, which are in internal/pae.
//
// # How a key comes about
//
// Of the link's two nodes the one with the smaller name asks. It gets a key and its
// id, and offers the id to the far end, again and again, until that one says that it
// has the key. Only then does it hand the key to the Ring; the far end does so as
// soon as its own service has given it the key. What was handed over under an epoch
// never changes: when a key has to be asked for again, because the services do not
// agree or an end was restarted and has lost its keys, which nobody stores, it comes
// under the next generation. Which generations were used is on disk (ledger).
//
// # What an attacker on the link can do
//
// Messages are hints. Whoever writes some can have this end ask its service for ids
// that it does not know, or for more keys than are needed, and both only a few times
// a minute; raise the generation; and keep two ends from agreeing for as long as it
// goes on, as whoever cuts the wire does. It cannot replace a key that is in use, nor
// make the ends use one that the service has not given to both of them: a key that
// one end alone has comes into no CAK that MKA could confirm.
package keyservice
