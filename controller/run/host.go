package run

import (
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Hosts are where runs can be carried out.
type Hosts interface {
	// Choose finds the host for a run with these labs, one for each parameter point.
	Choose(labs []*tcplabv1.Lab) (host string, err error)
	// Agent is the host's.
	Agent(host string) tcplabv1.AgentServiceClient
	// Use notes what a host has to do, until release is called.
	Use(host, use string) (release func())
}

// onlyHost is the one host of an embedded lab, which has no name.
type onlyHost struct{ agent tcplabv1.AgentServiceClient }

func (o onlyHost) Choose([]*tcplabv1.Lab) (string, error)   { return "", nil }
func (o onlyHost) Agent(string) tcplabv1.AgentServiceClient { return o.agent }
func (o onlyHost) Use(string, string) (release func())      { return func() {} }
