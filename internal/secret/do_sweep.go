//go:build !goexperiment.runtimesecret

package secret

// reach is how much stack a call of Do may use and leave clean. Nothing that
// handles keys here comes near it: a hash function takes some 2 KiB, with all
// that it calls.
const reach = 16 << 10

// do clears the stack below it afterwards, and before so that the stack is large
// enough then: one that grows is copied, and the old one stays as it was.
func do(f func()) {
	sweep()
	f()
	sweep()
}

// sweep fills its frame with zeros, which lies where that of f lay.
//
//go:noinline
func sweep() {
	var room [reach]byte
	keep(&room)
}

// keep is a use of room that the compiler cannot see through.
//
//go:noinline
func keep(*[reach]byte) {}
