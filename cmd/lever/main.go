// Command lever encrypts the links that leave physical control. A file here is a
// verb: it reads flags, calls one of the rooms and prints. What a verb does
// belongs in that room, and no verb opens a socket by itself.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lever-link/lever/internal/uml"
)

func main() {
	uml.Init() // in a guest of the demo's, this is its first process
	out := &output{to: os.Stdout}
	root := newRootCommand()
	root.SetOut(out)
	err := root.Execute()
	if err == nil {
		err = out.failed()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitStatus(err))
	}
}

// output is standard output. A command of which not everything has arrived there has
// failed, whether it looked at the result of each write or not.
type output struct {
	to io.Writer

	mu  sync.Mutex
	err error // of the first write that failed
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.to.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("not all of the output was written: %w", o.err)
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
		Use:               "lever",
		Short:             "Encrypts every link that leaves physical control",
		Version:           versionNow(),
		SilenceUsage:      true,
		SilenceErrors:     true, // main prints them, without a prefix: they may begin with file:line:column
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return checkFlags(cmd) },
	}
	root.AddCommand(newAgentCommand(), newStatusCommand(), newAuditCommand(), newCheckCommand(), newKeysCommand(), newNodeCommand(),
		newRekeyCommand(), newSuspendCommand(), newDownCommand(), newDemoCommand())
	return root
}

// checkFlags refuses flags that are given without a value, such as --tpm= or --out "":
// an empty variable of a script must not count as a flag that is not given.
func checkFlags(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if len(values) == 0 || slices.Contains(values, "") {
			errs = append(errs, fmt.Errorf("--%s is given without a value: write one, or leave the flag out", f.Name))
		}
	})
	return errors.Join(errs...)
}
