package main

import "runtime/debug"

// version is set by the Makefile (-ldflags -X main.version=…), to what git
// describes.
var version = ""

// versionNow is how this binary calls itself: a build by go install or go build
// alone knows its module's version or its commit.
func versionNow() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
