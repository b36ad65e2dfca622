// Package agent keeps the links of one node encrypted: it carries out what the
// inventory, the key channels and MKA say, on the kernel.
//
// Each link that must be encrypted has a task of its own, one goroutine that
// owns the link's mka.Port and does everything in the order that leaks nothing:
// the fence first, the device second, keys third, traffic last. What a Port
// asks for is done on macsec, pae and fence, and each result goes back into it.
// The control socket, over which the other verbs talk to a running agent, and
// the run directory, from which a restarted agent resumes, belong here too.
//
// What does not: the protocol (mka), where keys come from (internal/keys), the
// words of faults (internal/health), and anything that prints.
package agent
