package uml

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	Init() // the kernel tests run jobs, and so this program is their guest's first process
	os.Exit(m.Run())
}

func TestModuleOrder(t *testing.T) {
	const dep = `kernel/lib/crc.ko:
kernel/net/ip6.ko: kernel/lib/crc.ko
kernel/net/top-most.ko.xz: kernel/net/ip6.ko kernel/lib/crc.ko
kernel/net/alone.ko:
`
	tests := []struct {
		name  string
		names []string
		want  []string
		err   string
	}{
		{"nothing", nil, nil, ""},
		{"alone", []string{"alone"}, []string{"kernel/net/alone.ko"}, ""},
		{"deepest first", []string{"top-most"}, []string{"kernel/lib/crc.ko", "kernel/net/ip6.ko", "kernel/net/top-most.ko.xz"}, ""},
		{"dash or underscore", []string{"top_most"}, []string{"kernel/lib/crc.ko", "kernel/net/ip6.ko", "kernel/net/top-most.ko.xz"}, ""},
		{"each once", []string{"ip6", "crc", "ip6"}, []string{"kernel/lib/crc.ko", "kernel/net/ip6.ko"}, ""},
		{"built in", []string{"builtin", "alone"}, []string{"kernel/net/alone.ko"}, ""},
		{"all the unknown", []string{"x", "alone", "y"}, nil, "no module x, y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			deps, err := parseModulesDep(strings.NewReader(dep))
			if err != nil {
				t.Fatal(err)
			}
			deps.path["builtin"] = ""
			got, err := deps.order(tt.names)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("order %q, want %q", got, tt.want)
			}
		})
	}
	if _, err := parseModulesDep(strings.NewReader("no separator\n")); err == nil {
		t.Error("a line without colon was accepted")
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"HOME=/home/me", "TMPDIR=/var/tmp", "PATH=/opt/bin", "X=a=b"})
	last := map[string]string{}
	for _, kv := range got {
		k, v, _ := strings.Cut(kv, "=")
		if was, twice := last[k]; twice {
			t.Errorf("%s is %q and %q: a shell takes the last, Go the first", k, was, v)
		}
		last[k] = v
	}
	for k, want := range map[string]string{"HOME": "/tmp", "TMPDIR": "/tmp", "PATH": "/opt/bin", "X": "a=b", "USER": "root"} {
		if last[k] != want {
			t.Errorf("%s=%q, want %q", k, last[k], want)
		}
	}
}

func TestWithConsoleKeepsTheEnd(t *testing.T) {
	err := withConsole(os.ErrNotExist, strings.Repeat("boot\r\n", 100)+"Kernel panic\r\n")
	if !strings.HasSuffix(err.Error(), "Kernel panic") || strings.Contains(err.Error(), "\r") {
		t.Errorf("console not as it should be: %q", err)
	}
	if n := strings.Count(err.Error(), "\n"); n != 40 {
		t.Errorf("%d lines of console, want 40", n)
	}
}

func TestTailBuffer(t *testing.T) {
	var b tailBuffer
	for range 100 {
		b.Write([]byte(strings.Repeat("x", 1000) + "\n"))
	}
	b.Write([]byte("end"))
	if s := b.String(); !strings.HasSuffix(s, "\nend") || len(s) > 64<<10 || len(s) < 32<<10 {
		t.Errorf("kept %d octets, ending in %q", len(s), s[max(0, len(s)-5):])
	}
}

func TestFindNamesWhatToInstall(t *testing.T) {
	t.Setenv(KernelVariable, t.TempDir()+"/absent")
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), KernelVariable) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("error %v, want one that names %s and the path", err, KernelVariable)
	}
	err := &NoKernelError{Native: os.ErrPermission, Tried: []string{"/a", "/b"}, Broken: os.ErrInvalid}
	for _, want := range []string{"/a or /b", "permission", "invalid", "apt-get install user-mode-linux", "make kernel", KernelVariable} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}
