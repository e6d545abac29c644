package labs

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReferenceExpands(t *testing.T) {
	expandAll(t, Reference(), 2)
}

func TestStarterExpands(t *testing.T) {
	labs := expandAll(t, Source{Name: "mine.yaml", Content: Starter("mine")}, 1)
	if got := labs[0].GetName(); got != "mine" {
		t.Errorf("the starter's name is %q, want mine", got)
	}
}

// TestReferenceHasEveryKey walks the schema, which is made from what the
// parser reads, beside the reference.
func TestReferenceHasEveryKey(t *testing.T) {
	r := &report{}
	tree := readTree(Reference(), r)
	if err := r.err(); err != nil {
		t.Fatal(err)
	}
	written := make(map[string]bool)
	collectKeys(tree, "", written)
	schema := readSchema(t)
	keys := make(map[string]bool)
	schema.collect(schema.root, "", keys)
	if len(keys) < 50 {
		t.Fatalf("the schema has only %d keys: is it still walked?", len(keys))
	}
	explained := make(map[string]bool)
	for key := range written {
		explained[once(key)] = true
	}
	var missing []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !explained[once(key)] {
			missing = append(missing, key)
		}
	}
	if diff := cmp.Diff([]string(nil), missing); diff != "" {
		t.Errorf("keys that labs/reference.yaml does not explain:\n%s", diff)
	}
}

// once is the path of a key, where that of a shape, of a program, or of an http flow's object, is the
// same wherever it stands: it is explained once.
func once(path string) string {
	path = strings.ReplaceAll(path, "/exec/client/", "/exec/server/") // programs both
	within, key := "", path
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		within, key = path[:i], path[i:]
	}
	for _, place := range []string{"forward", "backward", "paths", "schedule", "steps"} {
		within = strings.ReplaceAll(within+"/", "/"+place+"/", "/")
		within = strings.TrimSuffix(within, "/")
	}
	// A document is an object.
	return strings.ReplaceAll(within, "/http/document", "/http/objects") + key
}

// collectKeys notes the path of every key; lists add nothing to a path, and
// names that the author chooses are *.
func collectKeys(n *node, path string, keys map[string]bool) {
	for _, item := range n.items {
		collectKeys(item, path, keys)
	}
	for _, p := range n.pairs {
		for _, key := range []string{p.key, "*"} {
			keys[path+"/"+key] = true
			collectKeys(p.value, path+"/"+key, keys)
		}
	}
}

type schemaWalk struct {
	root, defs map[string]any
}

func readSchema(t *testing.T) schemaWalk {
	t.Helper()
	b, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(b, &root); err != nil {
		t.Fatal(err)
	}
	defs, ok := root["$defs"].(map[string]any)
	if !ok {
		t.Fatal("the schema has no $defs")
	}
	return schemaWalk{root: root, defs: defs}
}

func (w schemaWalk) collect(s map[string]any, path string, keys map[string]bool) {
	if ref, ok := s["$ref"].(string); ok {
		if ref == "#/$defs/wire" {
			path = "/links" // whose keys are explained there
		}
		if def, ok := w.defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any); ok {
			w.collect(def, path, keys)
		}
	}
	if properties, ok := s["properties"].(map[string]any); ok {
		for key, value := range properties {
			keys[path+"/"+key] = true
			w.collect(value.(map[string]any), path+"/"+key, keys)
		}
	}
	for _, below := range []string{"items", "additionalProperties"} {
		if sub, ok := s[below].(map[string]any); ok {
			if below == "additionalProperties" {
				path += "/*"
			}
			w.collect(sub, path, keys)
		}
	}
	if alternatives, ok := s["anyOf"].([]any); ok {
		for _, a := range alternatives {
			w.collect(a.(map[string]any), path, keys)
		}
	}
}
