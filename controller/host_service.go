package controller

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/controller/fleet"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// defaultHostsPage is the size of a page of hosts that a request leaves open.
const defaultHostsPage = 100

// hostService is HostService: convert, call, convert.
type hostService struct {
	tcplabv1.UnimplementedHostServiceServer
	fleet  *fleet.Fleet
	access *access.Access
}

// ListHosts reads a page of hosts.
func (s *hostService) ListHosts(_ context.Context, req *tcplabv1.ListHostsRequest) (*tcplabv1.ListHostsResponse, error) {
	hosts, next := s.fleet.List(req.GetPageToken(), pageSize(req.GetPageSize(), defaultHostsPage))
	return &tcplabv1.ListHostsResponse{Hosts: hosts, NextPageToken: next}, nil
}

// GetHost reads a host.
func (s *hostService) GetHost(_ context.Context, req *tcplabv1.HostServiceGetHostRequest) (*tcplabv1.HostServiceGetHostResponse, error) {
	host, err := s.fleet.Get(req.GetName())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.HostServiceGetHostResponse{Host: host}, nil
}

// UpdateHost changes a host.
func (s *hostService) UpdateHost(ctx context.Context, req *tcplabv1.UpdateHostRequest) (*tcplabv1.UpdateHostResponse, error) {
	host, err := s.fleet.Update(ctx, req)
	if err != nil {
		return nil, err
	}
	return &tcplabv1.UpdateHostResponse{Host: host}, nil
}

// RemoveHost lets a host out.
func (s *hostService) RemoveHost(ctx context.Context, req *tcplabv1.RemoveHostRequest) (*tcplabv1.RemoveHostResponse, error) {
	// The certificate first: it must not come again. One that never connected has nothing else.
	err := s.access.Remove(ctx, tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, req.GetName())
	revoked := err == nil
	if err != nil && rpcerr.From(err).Code != codes.NotFound {
		return nil, err
	}
	if err := s.fleet.Remove(ctx, req.GetName()); err != nil && (!revoked || rpcerr.From(err).Code != codes.NotFound) {
		return nil, err
	}
	return &tcplabv1.RemoveHostResponse{}, nil
}
