package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var (
	mutantNames = flag.String("sim.mutants", "", "which deliberate bugs TestMutantsAreFound puts in: names with commas between, or all")
	stop        = flag.Bool("sim.stop", false, "TestSeeds ends at the first failed seed")
)

// mutant is a deliberate bug: a text that stands in a file once, what takes its place,
// and within how many seeds the simulation must find it.
type mutant struct {
	name, file, why string
	seeds, found    uint64 // allowed, and needed when it was last tried
	old, new        string
}

const (
	mutantList = "testdata/mutants.txtar"
	moduleRoot = "../.."
)

// readMutants reads the list. Each mutant is three files of the archive: NAME/about
// with "file:", "seeds:", "found:" and "why:" lines, NAME/old and NAME/new.
func readMutants(t *testing.T) []mutant {
	t.Helper()
	archive, err := txtar.ParseFile(mutantList)
	if err != nil {
		t.Fatal(err)
	}
	var all []mutant
	for _, f := range archive.Files {
		name, part, _ := strings.Cut(f.Name, "/")
		if part == "about" {
			all = append(all, mutant{name: name})
		}
		if len(all) == 0 || all[len(all)-1].name != name {
			t.Fatalf("%s: %s stands before %s/about", mutantList, f.Name, name)
		}
		m := &all[len(all)-1]
		switch part {
		case "about":
			for line := range strings.Lines(string(f.Data)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				switch key {
				case "file":
					m.file = value
				case "seeds":
					if m.seeds, err = strconv.ParseUint(value, 10, 64); err != nil {
						t.Fatalf("%s: %s: %v", mutantList, name, err)
					}
				case "found":
					if m.found, err = strconv.ParseUint(value, 10, 64); err != nil {
						t.Fatalf("%s: %s: %v", mutantList, name, err)
					}
				case "why":
					m.why = value
				default:
					t.Fatalf("%s: %s: no such key as %q", mutantList, name, key)
				}
			}
		case "old":
			m.old = strings.TrimSuffix(string(f.Data), "\n")
		case "new":
			m.new = strings.TrimSuffix(string(f.Data), "\n")
		default:
			t.Fatalf("%s: no such part as %s", mutantList, f.Name)
		}
	}
	return all
}

// apply returns the mutated source.
func (m *mutant) apply() (string, error) {
	source, err := os.ReadFile(filepath.Join(moduleRoot, m.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), m.old); n != 1 || m.old == "" {
		return "", fmt.Errorf("%s: what mutant %s replaces occurs %d times, want once: bring %s up to date", m.file, m.name, n, mutantList)
	}
	return strings.Replace(string(source), m.old, m.new, 1), nil
}

// The list must not rot silently: the code that a mutant changes has to be there.
func TestMutantsApply(t *testing.T) {
	all := readMutants(t)
	if len(all) < 12 {
		t.Errorf("%d mutants, want 12 at least", len(all))
	}
	var names []string
	for _, m := range all {
		if slices.Contains(names, m.name) || m.old == m.new || m.found == 0 || m.found > m.seeds || m.why == "" {
			t.Errorf("%s: %s is there twice or incomplete", mutantList, m.name)
		}
		names = append(names, m.name)
		if _, err := m.apply(); err != nil {
			t.Error(err)
		}
	}
}

// TestMutantsAreFound builds the simulation with one deliberate bug after the other,
// by an overlay, and runs it until a seed fails. Only when asked to: make mutants.
func TestMutantsAreFound(t *testing.T) {
	for _, m := range readMutants(t) {
		if *mutantNames != "all" && !slices.Contains(strings.Split(*mutantNames, ","), m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			found, err := m.hunt(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("%-28s %s\n", m.name, found)
		})
	}
}

var failedSeed = regexp.MustCompile(`seed (\d+), (\d+ members): (.*)`)

// hunt says which seed found the mutant, and by what.
func (m *mutant) hunt(ctx context.Context, dir string) (string, error) {
	source, err := m.apply()
	if err != nil {
		return "", err
	}
	mutated, overlay, binary := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	if err := os.WriteFile(mutated, []byte(source), 0o600); err != nil {
		return "", err
	}
	original, err := filepath.Abs(filepath.Join(moduleRoot, m.file))
	if err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutated}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with %s: %w\n%s", m.name, err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, binary, "-test.run=^TestSeeds$", "-sim.first=1", fmt.Sprintf("-sim.seeds=%d", m.seeds), "-sim.stop")
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", fmt.Errorf("%d seeds did not find it: %s", m.seeds, m.why)
	case !errors.As(err, &exit):
		return "", fmt.Errorf("run with %s: %w", m.name, err)
	}
	found := failedSeed.FindSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("run with %s: %w, and no seed failed\n%s", m.name, err, out)
	}
	return fmt.Sprintf("seed %s (%s) of %d allowed: %.120s", found[1], found[2], m.seeds, found[3]), nil
}
