package inventory

import (
	_ "embed"
	"slices"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema (draft 2020-12) of an inventory file, for
// editors and other tools. It knows the shape of a file; what the parts of an
// inventory must have to do with each other only [Load] knows.
func Schema() []byte { return slices.Clone(schema) }
