package controller

import (
	"log/slog"
	"testing"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/controller/store"
)

// Every method of every service that a fleet's controller serves has a rule, and every rule a method: who adds a
// method says in controller/access/rule.go who may call it.
func TestRulesCoverTheServices(t *testing.T) {
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{Lasting: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server, parts, err := build(t.Context(), Config{Store: s, Fleet: &Fleet{Name: "lab1"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer parts.fleet.Close()
	rules := access.Rules()
	for service, info := range server.GetServiceInfo() {
		for _, method := range info.Methods {
			full := "/" + service + "/" + method.Name
			if _, ok := rules[full]; !ok {
				t.Errorf("nobody may call %s: give it a rule", full)
			}
			delete(rules, full)
		}
	}
	for full := range rules {
		t.Errorf("there is a rule for %s, which is not served", full)
	}
}
