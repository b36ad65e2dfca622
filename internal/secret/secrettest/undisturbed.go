package secrettest

import (
	"os"
	"strings"
	"syscall"
)

// Undisturbed starts the program anew with the runtime's preemption by signals off,
// unless that is so already. A signal that comes while a key is being worked on saves
// the registers, and with them parts of the key, where nobody can erase them. Lever
// is built without it (see the Makefile); for tests that search their own memory,
// however they were started, call it in an init function.
func Undisturbed() {
	const off = "asyncpreemptoff=1"
	debug := os.Getenv("GODEBUG")
	self, err := os.Executable()
	if err != nil || strings.Contains(debug, off) {
		return
	}
	_ = os.Setenv("GODEBUG", strings.TrimPrefix(debug+","+off, ","))
	_ = syscall.Exec(self, os.Args, os.Environ()) // it returns only if it fails
}
