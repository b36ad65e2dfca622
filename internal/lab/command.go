package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// Run runs a command of the machine's in the namespace, as an operator at a
// shell there does: ip, tc. What it says is in the error when it fails.
func (n *Netspace) Run(ctx context.Context, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s in %s: %w: %s", strings.Join(command, " "), n.Name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}
