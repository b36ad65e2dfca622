// Package examples holds inventories to copy from, and makes those that the
// binary itself runs part of it.
//
// What belongs here: inventories, each in a directory of its own, and their
// embedding. What does not: anything that reads them.
package examples

import _ "embed"

// Demo is the inventory of "lever demo", demo/lever.yaml.
//
//go:embed demo/lever.yaml
var Demo []byte
