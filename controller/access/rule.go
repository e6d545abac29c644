package access

import (
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Rule says who may call a method.
type Rule struct {
	// Anyone: a certificate is not needed.
	Anyone bool
	// Known: whoever has a certificate, agents too.
	Known bool
	// Role that a user needs; those above it suffice too.
	Role tcplabv1.Role
	// Exec: and the right to run programs in nodes.
	Exec bool
	// Audit: each call is written down, not only those that are refused.
	Audit bool
}

// Roles that rules name.
const (
	viewer   = tcplabv1.Role_ROLE_VIEWER
	operator = tcplabv1.Role_ROLE_OPERATOR
	admin    = tcplabv1.Role_ROLE_ADMIN
)

// Rules is the one table of who may call what, by full method name. What it does not name
// nobody may call. A test walks the registered services.
func Rules() map[string]Rule {
	rules := make(map[string]Rule)
	in := func(service string, methods map[string]Rule) {
		for method, rule := range methods {
			rules["/"+service+"/"+method] = rule
		}
	}
	see, change, govern := Rule{Role: viewer}, Rule{Role: operator, Audit: true}, Rule{Role: admin, Audit: true}
	in(tcplabv1.RunService_ServiceDesc.ServiceName, map[string]Rule{
		"PlanRun": see, "GetRun": see, "ListRuns": see, "WatchRun": see, "ListTrials": see, "GetRunReport": see,
		"ReadRunArtifact": see, "WatchSamples": see,
		"CreateRun": change, "CancelRun": change,
	})
	in(tcplabv1.LabService_ServiceDesc.ServiceName, map[string]Rule{
		"ValidateLab": see, "GetDeployment": see, "ListDeployments": see, "GetLink": see, "ListLinks": see, "WatchLinks": see,
		"CreateDeployment": change, "DeleteDeployment": change, "UpdateLink": change, "VerifyLinks": change,
		"Exec": {Role: operator, Exec: true, Audit: true},
	})
	in(tcplabv1.HostService_ServiceDesc.ServiceName, map[string]Rule{
		"ListHosts": see, "GetHost": see,
		"UpdateHost": govern, "RemoveHost": govern,
	})
	in(tcplabv1.AccessService_ServiceDesc.ServiceName, map[string]Rule{
		"Enrol":            {Anyone: true, Audit: true},
		"RenewCertificate": {Known: true, Audit: true},
		"Leave":            {Known: true, Audit: true},
		"GetIdentity":      {Known: true},
		"ListTokens":       {Role: admin},
		"ListUsers":        {Role: admin},
		"ListAuditEntries": {Role: admin},
		"CreateToken":      govern, "DeleteToken": govern, "UpdateUser": govern, "RemoveUser": govern,
	})
	// gRPC's own, by their published names.
	in("grpc.health.v1.Health", map[string]Rule{"Check": {Anyone: true}, "List": see, "Watch": see})
	in("grpc.reflection.v1.ServerReflection", map[string]Rule{"ServerReflectionInfo": {Role: admin}})
	in("grpc.reflection.v1alpha.ServerReflection", map[string]Rule{"ServerReflectionInfo": {Role: admin}})
	in("grpc.channelz.v1.Channelz", map[string]Rule{
		"GetTopChannels": {Role: admin}, "GetServers": {Role: admin}, "GetServer": {Role: admin}, "GetServerSockets": {Role: admin},
		"GetChannel": {Role: admin}, "GetSubchannel": {Role: admin}, "GetSocket": {Role: admin},
	})
	return rules
}
