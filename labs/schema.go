package labs

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"
)

// schemaID names the schema; nothing is fetched from there.
const schemaID = "https://github.com/tcplab/tcplab/labs/lab.schema.json"

// Schema is the JSON Schema (2020-12) of the lab file, for editors. It is made
// from the structs that the parser decodes into. It says less than the parser
// does: nothing of ranges, nor of what contradicts what.
func Schema() ([]byte, error) {
	s := reflectSchema(&labSpec{})
	s.ID, s.Title = schemaID, "tcplab lab"
	// What only values that read themselves mention. wire comes last, for
	// topology brings along what such a value says of itself: a reference to it.
	for _, more := range []struct {
		name string
		spec any
	}{
		{"node", &nodeSpec{}},
		{"topology", &topologySpec{}},
		{"overhead" + mappingSuffix, &overheadSpec{}},
		{"queue" + mappingSuffix, &queueSpec{}},
		{"jitter" + mappingSuffix, &jitterSpec{}},
		{"loss" + mappingSuffix, &lossSpec{}},
		{"reorder" + mappingSuffix, &reorderSpec{}},
		{"chance" + mappingSuffix, &chanceSpec{}},
		{"schedule" + mappingSuffix, &scheduleSpec{}},
		{"trace" + mappingSuffix, &traceSpec{}},
		{"httpObject" + mappingSuffix, &httpObjectSpec{}},
		{"httpProxy" + mappingSuffix, &httpProxySpec{}},
		{"wire", &linkSpec{}},
	} {
		def := reflectSchema(more.spec)
		maps.Copy(s.Definitions, def.Definitions)
		def.Version, def.Definitions = "", nil
		s.Definitions[more.name] = def
	}
	for _, key := range wireKeys() {
		s.Definitions["wire"].Properties.Delete(key)
	}
	s.Definitions["wire"].Required = nil
	for _, def := range s.Definitions {
		allowParameters(def)
	}
	allowParameters(s)
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the lab file's schema: %w", err)
	}
	return append(out, '\n'), nil
}

func reflectSchema(spec any) *jsonschema.Schema {
	r := jsonschema.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		ExpandedStruct:             true,
		Anonymous:                  true,
		Namer:                      func(t reflect.Type) string { return strings.TrimSuffix(t.Name(), "Spec") },
	}
	return r.Reflect(spec)
}

// parameterPattern finds a ${parameter} in a text, or a choice by one.
const parameterPattern = `\$\{[a-z][a-z0-9_]*( *\?[^}]*)?\}`

func parameterSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: parameterPattern}
}

// allowParameters lets the texts of an object that must have a pattern be
// parameters, too.
func allowParameters(s *jsonschema.Schema) {
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		if p.Value.Type == "string" && p.Value.Pattern != "" {
			p.Value.Pattern += "|" + parameterPattern
			p.Value.MaxLength = nil
		}
	}
}

// quantitySchema is a text of a number with one of the units, or a plain number.
func quantitySchema(plain bool, units ...string) *jsonschema.Schema {
	text := &jsonschema.Schema{Type: "string", Pattern: `^[0-9.]+(` + strings.Join(units, "|") + `)$`}
	number := &jsonschema.Schema{Type: "number", Minimum: "0"}
	if !plain {
		number = &jsonschema.Schema{Const: 0} // 0 is 0 in any unit
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text, number, parameterSchema()}}
}

func choiceSchema(names []string) *jsonschema.Schema {
	enum := make([]any, len(names))
	for i, name := range names {
		enum[i] = name
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Enum: enum}, parameterSchema()}}
}

func anyOf(types ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	for _, t := range types {
		s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: t})
	}
	return s
}

func (duration) JSONSchema() *jsonschema.Schema {
	return quantitySchema(false, "ns", "us", "µs", "ms", "s", "m", "min", "h")
}

func (rate) JSONSchema() *jsonschema.Schema {
	s := quantitySchema(false, "[kMGT]?bit(/s)?")
	s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Const: "unlimited"})
	return s
}

func (size) JSONSchema() *jsonschema.Schema {
	return quantitySchema(true, "[kMGT]?B", "[KMGT]iB")
}

func (share) JSONSchema() *jsonschema.Schema { return quantitySchema(true, "%") }

func (limit) JSONSchema() *jsonschema.Schema {
	return quantitySchema(true, "[kMGT]?B", "[KMGT]iB", "ns", "us", "µs", "ms", "s", "m", "min", "h")
}

func (signedSize) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "string", Pattern: `^-?[0-9.]+([kMGT]?B|[KMGT]iB)$`}, {Type: "integer"}, parameterSchema(),
	}}
}

func (deviation) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "number", Minimum: "-4", Maximum: "4"}, parameterSchema()}}
}

func (codePoint) JSONSchema() *jsonschema.Schema {
	s := choiceSchema(slices.Sorted(maps.Keys(codePoints())))
	s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: "integer", Minimum: "0", Maximum: "63"})
	return s
}

func (portRange) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "string", Pattern: `^[0-9]+(-[0-9]+)?$`}, {Type: "integer", Minimum: "1", Maximum: "65535"}, parameterSchema(),
	}}
}

func (fileName) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^[^./\\:-][^/\\:]*$`}
}

// mappingSuffix tells the definition of a value's mapping from that of the value.
const mappingSuffix = "Mapping"

// orMapping is a scalar, or a mapping as defined.
func orMapping(scalar *jsonschema.Schema, def string) *jsonschema.Schema {
	scalar.AnyOf = append(scalar.AnyOf, &jsonschema.Schema{Ref: "#/$defs/" + def + mappingSuffix})
	return scalar
}

func (overhead) JSONSchema() *jsonschema.Schema {
	s := signedSize(0).JSONSchema()
	s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: "string", Enum: []any{"ethernet", "atm"}})
	return orMapping(s, "overhead")
}

func (queue) JSONSchema() *jsonschema.Schema   { return orMapping(limit{}.JSONSchema(), "queue") }
func (jitter) JSONSchema() *jsonschema.Schema  { return orMapping(duration(0).JSONSchema(), "jitter") }
func (loss) JSONSchema() *jsonschema.Schema    { return orMapping(share(0).JSONSchema(), "loss") }
func (reorder) JSONSchema() *jsonschema.Schema { return orMapping(share(0).JSONSchema(), "reorder") }
func (chance) JSONSchema() *jsonschema.Schema  { return orMapping(share(0).JSONSchema(), "chance") }

func (trace) JSONSchema() *jsonschema.Schema {
	return orMapping(&jsonschema.Schema{AnyOf: []*jsonschema.Schema{fileName{}.JSONSchema()}}, "trace")
}

func (schedule) JSONSchema() *jsonschema.Schema {
	return orMapping(&jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "array", Items: &jsonschema.Schema{Ref: "#/$defs/step"}},
	}}, "schedule")
}

func (count) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0"}, parameterSchema()}}
}

func (frequency) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "number", ExclusiveMinimum: "0"}, parameterSchema()}}
}

func (toggle) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "boolean"}, parameterSchema()}}
}

func (expression) JSONSchema() *jsonschema.Schema { return anyOf("string", "number") }
func (nodeKind) JSONSchema() *jsonschema.Schema   { return choiceSchema(nodeKindChoices()) }
func (engine) JSONSchema() *jsonschema.Schema     { return choiceSchema(engineChoices()) }
func (ipFamily) JSONSchema() *jsonschema.Schema   { return choiceSchema(ipFamilyChoices()) }
func (over) JSONSchema() *jsonschema.Schema       { return choiceSchema(overChoices()) }
func (discipline) JSONSchema() *jsonschema.Schema { return choiceSchema(disciplineChoices()) }
func (protocol) JSONSchema() *jsonschema.Schema   { return choiceSchema(protocolChoices()) }

func (closeOrder) JSONSchema() *jsonschema.Schema { return choiceSchema(closeChoices()) }

func (distribution) JSONSchema() *jsonschema.Schema { return choiceSchema(distributionChoices()) }

func (paramList) JSONSchema() *jsonschema.Schema {
	value := anyOf("string", "number", "boolean")
	one := uint64(1)
	value.AnyOf = append(value.AnyOf, &jsonschema.Schema{Type: "array", MinItems: &one, Items: anyOf("string", "number", "boolean")})
	return &jsonschema.Schema{
		Type:                 "object",
		PropertyNames:        &jsonschema.Schema{Pattern: parameterName.String()},
		AdditionalProperties: value,
	}
}

func (nodeList) JSONSchema() *jsonschema.Schema {
	one := uint64(1)
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "array", MinItems: &one, Items: &jsonschema.Schema{Type: "string"}},
		{Type: "object", AdditionalProperties: &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Ref: "#/$defs/node"}, {Type: "null"},
		}}},
	}}
}

func (topologyList) JSONSchema() *jsonschema.Schema { return oneOrMore("topology") }
func (wireList) JSONSchema() *jsonschema.Schema     { return oneOrMore("wire") }
func (wire) JSONSchema() *jsonschema.Schema         { return &jsonschema.Schema{Ref: "#/$defs/wire"} }

// oneOrMore is a definition, or a list of them.
func oneOrMore(def string) *jsonschema.Schema {
	one := &jsonschema.Schema{Ref: "#/$defs/" + def}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{one, {Type: "array", Items: one}}}
}

func (routeMap) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{Type: "string"}}
}

func (textMap) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", AdditionalProperties: anyOf("string", "number", "boolean")}
}

func (addressMap) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}},
	}}}
}

// orOne lets one value stand for a list of one.
func orOne(s *jsonschema.Schema, key string, one *jsonschema.Schema) {
	if property, ok := s.Properties.Get(key); ok {
		list := *property
		description := list.Description
		list.Description = ""
		s.Properties.Set(key, &jsonschema.Schema{Description: description, AnyOf: []*jsonschema.Schema{&list, one}})
	}
}

// JSONSchemaExtend lets one size stand for a list of one.
func (transactionSpec) JSONSchemaExtend(s *jsonschema.Schema) {
	orOne(s, "writes", size(0).JSONSchema())
}

// JSONSchemaExtend lets one size, or one gap, stand for a list of one.
func (burstSpec) JSONSchemaExtend(s *jsonschema.Schema) {
	orOne(s, "writes", size(0).JSONSchema())
	orOne(s, "gaps", duration(0).JSONSchema())
}

// JSONSchemaExtend lets one number stand for a list of one.
func (lossSpec) JSONSchemaExtend(s *jsonschema.Schema) { orOne(s, "packets", count(0).JSONSchema()) }

func (httpMethod) JSONSchema() *jsonschema.Schema    { return choiceSchema(httpMethodChoices()) }
func (httpFraming) JSONSchema() *jsonschema.Schema   { return choiceSchema(httpFramingChoices()) }
func (httpClose) JSONSchema() *jsonschema.Schema     { return choiceSchema(httpCloseChoices()) }
func (httpProxyKind) JSONSchema() *jsonschema.Schema { return choiceSchema(httpProxyKindChoices()) }

// JSONSchema of a version: YAML reads 1.1 as a number.
func (httpVersion) JSONSchema() *jsonschema.Schema {
	s := choiceSchema(httpVersionChoices())
	s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: "number", Enum: []any{1, 1.1, 2}})
	return s
}

func (httpObject) JSONSchema() *jsonschema.Schema {
	return orMapping(size(0).JSONSchema(), "httpObject")
}

func (httpProxy) JSONSchema() *jsonschema.Schema {
	return orMapping(&jsonschema.Schema{Type: "string"}, "httpProxy")
}

// JSONSchemaExtend lets one size, or one proxy's node, stand for a list of one.
func (httpSpec) JSONSchemaExtend(s *jsonschema.Schema) {
	orOne(s, "objects", size(0).JSONSchema())
	orOne(s, "via", &jsonschema.Schema{Type: "string"})
}
