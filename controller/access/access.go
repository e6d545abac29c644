// Package access decides who may call the controller, and for what: it is a certificate authority,
// gives out join tokens, lets people and agents in and out, holds each call against one table of
// roles, and writes down what was asked and what was refused.
//
// It refuses everything that the table does not name, before a byte of the request is read. Who is let out
// is out at once: connections are closed, and what streams on them ends. Tokens work once, for a short time, for one
// name, and whoever guesses at them is slowed down by address.
package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what access is decided with.
type Config struct {
	// Store keeps members, tokens and the audit log.
	Store *store.Store
	// Authority signs.
	Authority *Authority
	// Log takes what is no caller's error. Never nil.
	Log *slog.Logger
}

// Access decides. Its methods are safe for concurrent use.
type Access struct {
	cfg     Config
	rules   map[string]Rule
	tries   *limiter
	refused chan *tcplabv1.AuditEntry // to be written down

	mu      sync.Mutex // guards what is below
	members map[member]store.Member
	conns   map[member]map[*conn]bool
	lost    uint64 // refusals that were not written down
}

// member is a name with its kind.
type member struct {
	kind tcplabv1.PrincipalKind
	name string
}

// refusedWaiting bounds the refusals that wait to be written down; more at a time are counted.
const refusedWaiting = 256

// New reads who is in. Run must go on as long as it is used.
func New(ctx context.Context, cfg Config) (*Access, error) {
	a := &Access{
		cfg: cfg, rules: Rules(), tries: newLimiter(), refused: make(chan *tcplabv1.AuditEntry, refusedWaiting),
		members: make(map[member]store.Member), conns: make(map[member]map[*conn]bool),
	}
	members, err := cfg.Store.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		a.members[of(m.Principal)] = m
	}
	return a, nil
}

// Authority is the certificate of the authority.
func (a *Access) Authority() *x509.Certificate { return a.cfg.Authority.Certificate() }

func of(p *tcplabv1.Principal) member { return member{p.GetKind(), p.GetName()} }

// Run writes refusals down until ctx ends.
func (a *Access) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case entry := <-a.refused:
			entries := []*tcplabv1.AuditEntry{entry}
			for len(entries) < refusedWaiting && len(a.refused) > 0 {
				entries = append(entries, <-a.refused)
			}
			if err := a.cfg.Store.AppendAudit(ctx, entries...); err != nil && ctx.Err() == nil {
				a.cfg.Log.Error("refused calls are not in the audit log", "calls", len(entries), "error", err)
			}
		}
	}
}

// Defaults of CreateTokenRequest.
const defaultTokenLife = 10 * time.Minute

// CreateToken makes a token. It is told once.
func (a *Access) CreateToken(ctx context.Context, req *tcplabv1.CreateTokenRequest) (secret string, _ *tcplabv1.Token, err error) {
	principal := &tcplabv1.Principal{Kind: req.GetKind(), Name: req.GetName(), Creator: CallerOf(ctx).String()}
	if principal.GetKind() == tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER {
		principal.Role, principal.Exec = max(viewer, req.GetRole()), req.GetExec()
		if principal.GetName() == "" {
			return "", nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "a user needs a name")
		}
		if principal.GetName() == local {
			return "", nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "%s is root of the controller's machine: choose another name", local)
		}
		if a.has(of(principal)) {
			return "", nil, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "choose another name, or remove the user first: tcplab user remove "+principal.GetName(),
				"a user %s is in already", principal.GetName())
		}
	} else if req.GetRole() != 0 || req.GetExec() {
		return "", nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "an agent has no role, and no right to run programs")
	}
	life := defaultTokenLife
	if req.GetTtl() != nil {
		life = req.GetTtl().AsDuration()
	}
	drawn, err := identity.NewToken(a.cfg.Authority.Certificate().Raw)
	if err != nil {
		return "", nil, err
	}
	token := &tcplabv1.Token{Id: drawn.ID, Principal: principal, ExpireTime: timestamppb.New(time.Now().Add(life))}
	sum := sha256.Sum256(drawn.Secret)
	if err := a.cfg.Store.PutToken(ctx, token, sum[:]); err != nil {
		return "", nil, err
	}
	return drawn.String(), token, nil
}

// Enrol lets in whoever has a token that works.
func (a *Access) Enrol(ctx context.Context, req *tcplabv1.EnrolRequest) (*tcplabv1.EnrolResponse, error) {
	from := CallerOf(ctx).Address
	if wait, ok := a.tries.allowed(from); !ok {
		return nil, rpcerr.New(codes.ResourceExhausted, rpcerr.Busy, fmt.Sprintf("wait %v", wait.Round(time.Second)),
			"too many tokens that do not work were tried from %v", from)
	}
	given, err := identity.ParseToken(req.GetToken())
	if err != nil || given.Authority != sha256.Sum256(a.cfg.Authority.Certificate().Raw) {
		a.tries.failed(from)
		return nil, rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "ask an admin of this controller for one", "it is no token of this controller's")
	}
	key, err := identity.PublicKey(req.GetCertificateRequest())
	if err != nil {
		return nil, err
	}
	drawn := make([]byte, 12)
	if _, err := rand.Read(drawn); err != nil {
		return nil, fmt.Errorf("draw an enrolment: %w", err)
	}
	sum := sha256.Sum256(given.Secret)
	response := &tcplabv1.EnrolResponse{Authority: a.cfg.Authority.Certificate().Raw}
	var entered store.Member
	err = a.cfg.Store.Enrol(ctx, given.ID, sum[:], func(token *tcplabv1.Token) (entry store.Entry, err error) {
		m := store.Member{Principal: proto.CloneOf(token.GetPrincipal()), Enrolment: hex.EncodeToString(drawn)}
		if entry.Replace, err = chooseName(m.Principal, req.GetName()); err != nil {
			return entry, err
		}
		m.Principal.CreateTime = timestamppb.Now()
		entry.Member = m
		entry.Audit = newEntry(CallerOf(ctx), tcplabv1.AccessService_Enrol_FullMethodName, m.Principal.GetName(), nil)
		response.Certificate, err = a.cfg.Authority.Sign(identityOf(m), key)
		return entry, err
	}, func(m store.Member) {
		entered = m
		a.set(m)
	})
	if err != nil {
		if errors.Is(err, store.ErrToken) {
			a.tries.failed(from)
		}
		return nil, err
	}
	writtenDown(ctx)
	response.Principal = entered.Principal
	a.hangUp(of(entered.Principal)) // an earlier owner of the name
	return response, nil
}

// set enters a member, in place of an earlier one of the name.
func (a *Access) set(m store.Member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members[of(m.Principal)] = m
}

// unset strikes a member out.
func (a *Access) unset(who member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.members, who)
}

// chooseName settles the name of whom a token lets in, and whether it may be in already: an admin who makes
// a token for a host of that name has it join anew.
func chooseName(p *tcplabv1.Principal, wanted string) (replace bool, err error) {
	switch {
	case p.GetName() == "" && wanted == "":
		return false, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "give it a name", "the token is for a host of any name, and none was given")
	case p.GetName() == "":
		p.Name = wanted
		return false, nil
	case wanted != "" && wanted != p.GetName():
		return false, rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "", "the token is for %s, and not for %s", p.GetName(), wanted)
	}
	return p.GetKind() == tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, nil
}

// identityOf is what stands in a member's certificate.
func identityOf(m store.Member) identity.Identity {
	kind := identity.User
	if m.Principal.GetKind() == tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT {
		kind = identity.Agent
	}
	return identity.Identity{Kind: kind, Name: m.Principal.GetName(), Enrolment: m.Enrolment}
}

// Renew signs a new certificate for the caller.
func (a *Access) Renew(ctx context.Context, request []byte) ([]byte, error) {
	caller := CallerOf(ctx)
	if caller.identity.Kind == "" {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid, "", "%s has no certificate to renew", caller)
	}
	key, err := identity.PublicKey(request)
	if err != nil {
		return nil, err
	}
	return a.cfg.Authority.Sign(caller.identity, key)
}

// Users reads users by name, at most most of those after one.
func (a *Access) Users(after string, most int) (users []*tcplabv1.Principal, next string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return page(a.members, after, most)
}

// UpdateUser changes what a user may do. What it may not do any more ends.
func (a *Access) UpdateUser(ctx context.Context, name string, role tcplabv1.Role, exec bool) (*tcplabv1.Principal, error) {
	who := member{tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, name}
	a.mu.Lock()
	m, ok := a.members[who]
	a.mu.Unlock()
	if !ok {
		return nil, notIn(name)
	}
	changed := proto.CloneOf(m.Principal)
	changed.Role, changed.Exec = role, exec
	if err := a.cfg.Store.UpdateMember(ctx, changed, func() { a.set(store.Member{Principal: changed, Enrolment: m.Enrolment}) }); err != nil {
		return nil, err
	}
	if role < m.Principal.GetRole() || m.Principal.GetExec() && !exec {
		a.hangUp(who)
	}
	return changed, nil
}

// farewell is how long who leaves may still hear the answer.
const farewell = time.Second

// Leave lets one out who asks for it: as Remove, but that the answer still goes out.
func (a *Access) Leave(ctx context.Context, p *tcplabv1.Principal) error {
	who := of(p)
	if err := a.cfg.Store.DeleteMember(ctx, who.kind, who.name, func() { a.unset(who) }); err != nil {
		return err
	}
	time.AfterFunc(farewell, func() { a.hangUp(who) })
	return nil
}

// Remove lets one out: its certificate is void, and its connections end.
func (a *Access) Remove(ctx context.Context, kind tcplabv1.PrincipalKind, name string) error {
	who := member{kind, name}
	if err := a.cfg.Store.DeleteMember(ctx, kind, name, func() { a.unset(who) }); err != nil {
		return err
	}
	a.hangUp(who)
	return nil
}

func (a *Access) has(who member) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.members[who]
	return ok
}

// memberOf is the name that a certificate claims. A controller is no member.
func memberOf(i identity.Identity) member {
	switch i.Kind {
	case identity.Agent:
		return member{tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, i.Name}
	case identity.User:
		return member{tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, i.Name}
	case identity.Controller:
	}
	return member{}
}

// Principal is the member that a certificate names, or why it is none.
func (a *Access) Principal(i identity.Identity) (*tcplabv1.Principal, error) {
	a.mu.Lock()
	m, ok := a.members[memberOf(i)]
	a.mu.Unlock()
	switch {
	case i.Kind == identity.Controller:
		return nil, rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "", "%s is a controller, and no client of this one", i)
	case !ok || m.Enrolment != i.Enrolment:
		return nil, rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "ask an admin for a token, and join again", "the certificate of %s was revoked", i)
	}
	return m.Principal, nil
}

func notIn(name string) error {
	return rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "no user is called %s", name)
}

// hangUp closes all connections of a member.
func (a *Access) hangUp(who member) {
	a.mu.Lock()
	var all []*conn
	for c := range a.conns[who] {
		all = append(all, c)
	}
	a.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // whoever reads from it is told
	}
}
