package controller

import (
	"context"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/controller/fleet"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// defaultAccessPage is the size of pages of tokens, users and entries that a request leaves open.
const defaultAccessPage = 100

// accessService is AccessService: convert, call, convert.
type accessService struct {
	tcplabv1.UnimplementedAccessServiceServer
	access  *access.Access
	fleet   *fleet.Fleet
	store   *store.Store
	name    string
	version string
}

// CreateToken makes a join token.
func (s *accessService) CreateToken(ctx context.Context, req *tcplabv1.CreateTokenRequest) (*tcplabv1.CreateTokenResponse, error) {
	secret, token, err := s.access.CreateToken(ctx, req)
	if err != nil {
		return nil, err
	}
	return &tcplabv1.CreateTokenResponse{Secret: secret, Token: token}, nil
}

// ListTokens reads a page of tokens.
func (s *accessService) ListTokens(ctx context.Context, req *tcplabv1.ListTokensRequest) (*tcplabv1.ListTokensResponse, error) {
	size := pageSize(req.GetPageSize(), defaultAccessPage)
	tokens, err := s.store.Tokens(ctx, req.GetPageToken(), size+1)
	if err != nil {
		return nil, err
	}
	response := &tcplabv1.ListTokensResponse{Tokens: tokens}
	if len(tokens) > size {
		response.Tokens = tokens[:size]
		response.NextPageToken = tokens[size-1].GetId()
	}
	return response, nil
}

// DeleteToken makes a token void.
func (s *accessService) DeleteToken(ctx context.Context, req *tcplabv1.DeleteTokenRequest) (*tcplabv1.DeleteTokenResponse, error) {
	if err := s.store.DeleteToken(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return &tcplabv1.DeleteTokenResponse{}, nil
}

// Enrol exchanges a token for a certificate.
func (s *accessService) Enrol(ctx context.Context, req *tcplabv1.EnrolRequest) (*tcplabv1.EnrolResponse, error) {
	return s.access.Enrol(ctx, req)
}

// RenewCertificate replaces the caller's certificate.
func (s *accessService) RenewCertificate(ctx context.Context, req *tcplabv1.RenewCertificateRequest) (*tcplabv1.RenewCertificateResponse, error) {
	certificate, err := s.access.Renew(ctx, req.GetCertificateRequest())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.RenewCertificateResponse{Certificate: certificate, Authority: s.access.Authority().Raw}, nil
}

// Leave lets the caller out.
func (s *accessService) Leave(ctx context.Context, _ *tcplabv1.LeaveRequest) (*tcplabv1.LeaveResponse, error) {
	caller := access.CallerOf(ctx)
	if caller.Expires.IsZero() {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid, "", "%s has no certificate to give up", caller)
	}
	who := caller.Principal
	// The answer goes out before the connection ends.
	if err := s.access.Leave(ctx, who); err != nil {
		return nil, err
	}
	if who.GetKind() == tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT {
		if err := s.fleet.Remove(ctx, who.GetName()); err != nil && rpcerr.From(err).Code != codes.NotFound {
			return nil, err
		}
	}
	return &tcplabv1.LeaveResponse{}, nil
}

// GetIdentity says who the caller is.
func (s *accessService) GetIdentity(ctx context.Context, _ *tcplabv1.GetIdentityRequest) (*tcplabv1.GetIdentityResponse, error) {
	caller := access.CallerOf(ctx)
	response := &tcplabv1.GetIdentityResponse{
		Principal: caller.Principal, Controller: s.name, ControllerVersion: s.version,
		ContractMajor: tunnel.ContractMajor, ContractMinor: tunnel.ContractMinor,
	}
	if !caller.Expires.IsZero() {
		response.ExpireTime = timestamppb.New(caller.Expires)
	}
	return response, nil
}

// ListUsers reads a page of users.
func (s *accessService) ListUsers(_ context.Context, req *tcplabv1.ListUsersRequest) (*tcplabv1.ListUsersResponse, error) {
	users, next := s.access.Users(req.GetPageToken(), pageSize(req.GetPageSize(), defaultAccessPage))
	return &tcplabv1.ListUsersResponse{Users: users, NextPageToken: next}, nil
}

// UpdateUser changes what a user may do.
func (s *accessService) UpdateUser(ctx context.Context, req *tcplabv1.UpdateUserRequest) (*tcplabv1.UpdateUserResponse, error) {
	user, err := s.access.UpdateUser(ctx, req.GetName(), req.GetRole(), req.GetExec())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.UpdateUserResponse{User: user}, nil
}

// RemoveUser lets a user out.
func (s *accessService) RemoveUser(ctx context.Context, req *tcplabv1.RemoveUserRequest) (*tcplabv1.RemoveUserResponse, error) {
	if err := s.access.Remove(ctx, tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, req.GetName()); err != nil {
		return nil, err
	}
	return &tcplabv1.RemoveUserResponse{}, nil
}

// ListAuditEntries reads a page of the audit log.
func (s *accessService) ListAuditEntries(ctx context.Context, req *tcplabv1.ListAuditEntriesRequest) (*tcplabv1.ListAuditEntriesResponse, error) {
	before := uint64(0)
	if token := req.GetPageToken(); token != "" {
		var err error
		if before, err = strconv.ParseUint(token, 36, 63); err != nil {
			return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "start again without a page token", "%q is no page token", token)
		}
	}
	size := pageSize(req.GetPageSize(), defaultAccessPage)
	entries, err := s.store.Audit(ctx, before, size+1)
	if err != nil {
		return nil, err
	}
	response := &tcplabv1.ListAuditEntriesResponse{Entries: entries}
	if len(entries) > size {
		response.Entries = entries[:size]
		response.NextPageToken = strconv.FormatUint(entries[size-1].GetNumber(), 36)
	}
	return response, nil
}
