// Command lever encrypts the links that leave physical control. A file here is a
// verb: it reads flags, calls one of the rooms and prints. What a verb does
// belongs in that room, and no verb opens a socket by itself.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/uml"
)

func main() {
	uml.Init() // in a guest of the demo's, this is its first process
	if err := newRootCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitStatus(err))
	}
}

// exitError is an error with an exit status of its own; that of others is 1.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitStatus(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.status
	}
	return 1
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "lever",
		Short:         "Encrypts every link that leaves physical control",
		Version:       versionNow(),
		SilenceUsage:  true,
		SilenceErrors: true, // main prints them, without a prefix: they may begin with file:line:column
	}
	root.AddCommand(newAgentCommand(), newStatusCommand(), newAuditCommand(), newCheckCommand(), newKeysCommand(), newNodeCommand(),
		newRekeyCommand(), newSuspendCommand(), newDownCommand(), newDemoCommand())
	return root
}
