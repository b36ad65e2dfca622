package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// TestSchemaAndDecoder holds schema.json and the decoder together: the same
// mappings with the same keys, the same required keys, the same forms and words.
func TestSchemaAndDecoder(t *testing.T) {
	var file struct {
		Defs map[string]struct {
			Properties map[string]struct {
				Enum  []string
				Const string
				Items struct{ Enum []string }
			}
			Required             []string
			AdditionalProperties *bool
			Pattern              string
			Enum                 []string
			OneOf                []struct {
				Ref string `json:"$ref"`
			}
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &file); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, s := range shapes {
		described[s.name] = true
		def := file.Defs[s.name]
		if def.AdditionalProperties == nil || *def.AdditionalProperties {
			t.Errorf("%s: the schema allows unknown keys, the decoder refuses them", s.name)
		}
		same(t, s.name+": keys", slices.Sorted(maps.Keys(def.Properties)), s.keys)
		same(t, s.name+": required keys", def.Required, s.required)
	}
	for _, p := range patterns {
		described[p.name] = true
		if got := file.Defs[p.name].Pattern; got != p.source {
			t.Errorf("%s: the schema has the pattern %s, the decoder %s", p.name, got, p.source)
		}
	}
	for name, def := range file.Defs {
		if (def.Properties != nil || (def.Pattern != "" && name != "text")) && !described[name] {
			t.Errorf("%s is in the schema and not in the decoder", name)
		}
	}
	same(t, "custody classes", append(file.Defs["trusted"].Enum, string(UnknownCustody)), custodies)
	same(t, "protocols", file.Defs["link"].Properties["allow"].Items.Enum, protocols)
	same(t, "ciphers", file.Defs["link"].Properties["cipher"].Enum, ciphers)
	same(t, "modes", file.Defs["policy"].Properties["mode"].Enum, modes)
	var types []string
	for _, kind := range file.Defs["channel"].OneOf {
		types = append(types, file.Defs[strings.TrimPrefix(kind.Ref, "#/$defs/")].Properties["type"].Const)
	}
	same(t, "channel types", types, channelTypes)
	for i, s := range channelShapes {
		same(t, s.name, []string{file.Defs[s.name].Properties["type"].Const}, channelTypes[i:i+1])
	}
}

func same(t *testing.T, what string, schema, decoder []string) {
	t.Helper()
	a, b := slices.Sorted(slices.Values(schema)), slices.Sorted(slices.Values(decoder))
	if !slices.Equal(a, b) {
		t.Errorf("%s: the schema has %q, the decoder %q", what, a, b)
	}
}

// TestExamplesMatchSchema checks that editors accept what the examples show.
func TestExamplesMatchSchema(t *testing.T) {
	files, err := filepath.Glob("../examples/*/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("found the examples %q, %v", files, err)
	}
	s := compileSchema(t)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(s, data); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate checks YAML against the schema as an editor does.
func validate(s *jsonschema.Schema, data []byte) error {
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		return err
	}
	v, err := plainValue(&n)
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// plainValue gives a YAML tree the types of JSON. Dates are text in YAML 1.2,
// which is what editors speak.
func plainValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.DocumentNode:
		return plainValue(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := plainValue(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		l := []any{}
		for _, c := range n.Content {
			v, err := plainValue(c)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		return l, nil
	case yaml.ScalarNode, yaml.AliasNode:
		if n.ShortTag() == "!!timestamp" {
			return n.Value, nil
		}
		var v any
		err := n.Decode(&v)
		return v, err
	}
	return nil, fmt.Errorf("a YAML node of kind %d", n.Kind)
}
