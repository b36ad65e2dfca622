package service

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// unit reads the settings of lever.service by name.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("package/lever.service")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	return settings
}

// What the promises rest on, and what nobody would miss until a restart.
func TestUnitKeepsWhatARestartNeeds(t *testing.T) {
	have := unit(t)
	for name, want := range map[string]string{
		"Type":                     "notify",
		"Restart":                  "always",
		"RuntimeDirectory":         "lever",
		"RuntimeDirectoryMode":     "0700",
		"RuntimeDirectoryPreserve": "yes", // else a restart finds no record
		"StateDirectory":           "lever",
		"StateDirectoryMode":       "0700",
		"UMask":                    "0077",
		"CapabilityBoundingSet":    "CAP_NET_ADMIN CAP_NET_RAW",
		"LimitCORE":                "0",
		"LimitMEMLOCK":             "infinity", // else mlockall is refused
		"StartLimitIntervalSec":    "0",
	} {
		if got := strings.Join(have[name], " "); got != want {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	// Nothing may run at a stop: the encrypted path stands.
	for name := range have {
		if strings.HasPrefix(name, "ExecStop") {
			t.Errorf("the unit has %s", name)
		}
	}
	if strings.Join(have["WatchdogSec"], "") == "" {
		t.Error("the unit has no watchdog")
	}
	if len(have) < 40 {
		t.Errorf("found %d settings only: %v", len(have), slices.Sorted(maps.Keys(have)))
	}
}
