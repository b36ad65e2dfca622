// Command umlexec runs a program as root on a real kernel with MACsec, natively
// or in user-mode Linux. It is made for the go tool:
//
//	go test -tags kernel -exec /path/to/umlexec ./macsec
//
// The program sees the host's files at the host's paths, so that test data is
// read and coverage and profiles are written where the go tool expects them.
// It has /tmp and /run of its own; of the host's it sees there what its
// directory, its own path and its arguments name. Signals go to the program, and its exit
// status is ours; 125 means that it could not be run. With -find alone it names
// the kernel that it would use, or says what to install.
//
// What belongs here: the translation between the go tool and package uml.
// Everything else is in there.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lever-link/lever/internal/uml"
)

func main() {
	uml.Init()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: umlexec program [argument…] | -find")
		os.Exit(125)
	}
	if os.Args[1] == "-find" {
		kernel, err := uml.Find()
		if err != nil {
			fmt.Fprintln(os.Stderr, "umlexec:", err)
			os.Exit(125)
		}
		fmt.Println("kernel with MACsec:", kernel)
		return
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	res, err := uml.Run(context.Background(), uml.Job{
		Args:    os.Args[1:],
		Results: outputs(os.Args[2:]),
		Env:     os.Environ(),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Signals: signals,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "umlexec:", err)
		os.Exit(125)
	}
	os.Exit(res.ExitCode)
}

// outputs finds the files that the test is to write directly to /tmp or /run,
// where it would write to the guest's: they are brought to the host.
func outputs(args []string) map[string]string {
	files := map[string]string{}
	for _, arg := range args {
		flag, path, _ := strings.Cut(arg, "=")
		switch flag {
		case "-test.coverprofile", "-test.cpuprofile", "-test.memprofile", "-test.blockprofile", "-test.mutexprofile", "-test.trace":
			if dir := filepath.Dir(path); dir == "/tmp" || dir == "/run" {
				files[path] = path
			}
		}
	}
	return files
}
