package store

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Member is a principal and which of those that had its name it is.
type Member struct {
	Principal *tcplabv1.Principal
	Enrolment string // in its certificate
}

// ErrToken says that a token is wrong, used, expired or deleted; which, whoever tries may not know.
var ErrToken = errors.New("the token is wrong, used or expired")

// PutToken keeps a token, with the SHA-256 of its secret, until it is used or expires. Expired ones go
// on the way.
func (s *Store) PutToken(ctx context.Context, token *tcplabv1.Token, secret []byte) error {
	const op = "store a token"
	blob, err := proto.Marshal(token)
	if err != nil {
		return err
	}
	return s.write(ctx, op, func(ctx context.Context, conn *sql.Conn) error {
		if _, err := conn.ExecContext(ctx, "DELETE FROM tokens WHERE expires <= ?", time.Now().UnixMilli()); err != nil {
			return err
		}
		_, err := conn.ExecContext(ctx, "INSERT INTO tokens (id, secret, expires, token) VALUES (?, ?, ?, ?)",
			token.GetId(), secret, token.GetExpireTime().AsTime().UnixMilli(), blob)
		return err
	})
}

// Tokens reads tokens that work, by ID, at most most of those after one.
func (s *Store) Tokens(ctx context.Context, after string, most int) (all []*tcplabv1.Token, err error) {
	err = s.messages(ctx, "read the tokens", func(blob []byte) error {
		token := &tcplabv1.Token{}
		all = append(all, token)
		return proto.Unmarshal(blob, token)
	}, "SELECT token FROM tokens WHERE id > ? AND expires > ? ORDER BY id LIMIT ?", after, time.Now().UnixMilli(), most)
	return all, err
}

// DeleteToken makes a token void. NOT_FOUND where there is none.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.deleteOne(ctx, "delete the token", "no token has the ID "+id, "DELETE FROM tokens WHERE id = ?", id)
}

// Entry is whom a token lets in.
type Entry struct {
	Member Member
	// Replace: one of the name may be in, and is not any more.
	Replace bool
	// Audit is written down with it; nil: nothing.
	Audit *tcplabv1.AuditEntry
}

// Enrol uses a token up, lets in whom enter makes of it, and writes that down, all or nothing. secret is the SHA-256 of the
// token's. then is called once it is on disk, before any later change of who is in is. The errors are ErrToken, that of enter, and
// ALREADY_EXISTS where a principal of the name is in and the entry does not say that it may be.
func (s *Store) Enrol(ctx context.Context, id string, secret []byte, enter func(*tcplabv1.Token) (Entry, error), then func(Member)) error {
	var entry Entry
	return s.writeThen(ctx, "let somebody in", func(ctx context.Context, conn *sql.Conn) error {
		token, err := useToken(ctx, conn, id, secret)
		if err != nil {
			return err
		}
		if entry, err = enter(token); err != nil {
			return err
		}
		if err := insertMember(ctx, conn, entry.Member, entry.Replace); err != nil {
			return err
		}
		if entry.Audit == nil {
			return nil
		}
		return appendAudit(ctx, conn, entry.Audit)
	}, func() { then(entry.Member) })
}

// useToken deletes a token that works, and returns it.
func useToken(ctx context.Context, conn *sql.Conn, id string, secret []byte) (*tcplabv1.Token, error) {
	var kept, blob []byte
	var expires int64
	err := conn.QueryRowContext(ctx, "SELECT secret, expires, token FROM tokens WHERE id = ?", id).Scan(&kept, &expires, &blob)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusedToken()
	}
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(kept, secret) != 1 || expires <= time.Now().UnixMilli() {
		return nil, refusedToken()
	}
	token := &tcplabv1.Token{}
	if err := proto.Unmarshal(blob, token); err != nil {
		return nil, fmt.Errorf("decode a stored token: %w", err)
	}
	_, err = conn.ExecContext(ctx, "DELETE FROM tokens WHERE id = ?", id)
	return token, err
}

// refusedToken is ErrToken in the contract's form.
func refusedToken() error {
	return rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "ask an admin for another one: tcplab token create, or tcplab user invite", "%w", ErrToken)
}

func insertMember(ctx context.Context, conn *sql.Conn, m Member, replace bool) error {
	blob, err := proto.Marshal(m.Principal)
	if err != nil {
		return err
	}
	verb := "INSERT"
	if replace {
		verb = "INSERT OR REPLACE"
	}
	_, err = conn.ExecContext(ctx, verb+" INTO principals (kind, name, enrolment, principal) VALUES (?, ?, ?, ?)",
		m.Principal.GetKind(), m.Principal.GetName(), m.Enrolment, blob)
	if isTaken(err) {
		return rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "choose another name, or have an admin remove the one that is in",
			"one of the name %s is in already", m.Principal.GetName())
	}
	return err
}

// Members reads all who are in.
func (s *Store) Members(ctx context.Context) (all []Member, err error) {
	const op = "read who is in"
	rows, err := s.reader.QueryContext(ctx, "SELECT enrolment, principal FROM principals ORDER BY kind, name")
	if err != nil {
		return nil, storageError(s.dir, op, err)
	}
	defer rows.Close()
	for rows.Next() {
		m := Member{Principal: &tcplabv1.Principal{}}
		var blob []byte
		if err := rows.Scan(&m.Enrolment, &blob); err != nil {
			return nil, storageError(s.dir, op, err)
		}
		if err := proto.Unmarshal(blob, m.Principal); err != nil {
			return nil, storageError(s.dir, op, err)
		}
		all = append(all, m)
	}
	return all, storageError(s.dir, op, rows.Err())
}

// UpdateMember replaces what is kept of one who is in, and calls then as Enrol does. NOT_FOUND where nobody is.
func (s *Store) UpdateMember(ctx context.Context, p *tcplabv1.Principal, then func()) error {
	blob, err := proto.Marshal(p)
	if err != nil {
		return err
	}
	return s.changeOne(ctx, "change who is in", "nobody of the name "+p.GetName()+" is in", then,
		"UPDATE principals SET principal = ? WHERE kind = ? AND name = ?", blob, p.GetKind(), p.GetName())
}

// DeleteMember lets one out, and calls then as Enrol does. NOT_FOUND where nobody of the name is in.
func (s *Store) DeleteMember(ctx context.Context, kind tcplabv1.PrincipalKind, name string, then func()) error {
	return s.changeOne(ctx, "let somebody out", "nobody of the name "+name+" is in", then,
		"DELETE FROM principals WHERE kind = ? AND name = ?", kind, name)
}

// maxAudit is how many entries the audit log keeps: a year of one a minute is half of it.
const maxAudit = 1_000_000

// AppendAudit adds an entry, and numbers it. Where the log is full the oldest goes.
func (s *Store) AppendAudit(ctx context.Context, entries ...*tcplabv1.AuditEntry) error {
	return s.write(ctx, "write the audit log", func(ctx context.Context, conn *sql.Conn) error {
		for _, e := range entries {
			if err := appendAudit(ctx, conn, e); err != nil {
				return err
			}
		}
		return nil
	})
}

func appendAudit(ctx context.Context, conn *sql.Conn, e *tcplabv1.AuditEntry) error {
	blob, err := proto.Marshal(e)
	if err != nil {
		return err
	}
	added, err := conn.ExecContext(ctx, "INSERT INTO audit (entry) VALUES (?)", blob)
	if err != nil {
		return err
	}
	number, err := added.LastInsertId()
	if err != nil {
		return err
	}
	e.Number = uint64(number)
	_, err = conn.ExecContext(ctx, "DELETE FROM audit WHERE number <= ?", number-maxAudit)
	return err
}

// Audit reads entries, newest first, at most most of those before a number; 0: from the newest.
func (s *Store) Audit(ctx context.Context, before uint64, most int) (all []*tcplabv1.AuditEntry, err error) {
	const op = "read the audit log"
	limit := int64(1<<63 - 1)
	if before > 0 && before < 1<<63 {
		limit = int64(before)
	}
	rows, err := s.reader.QueryContext(ctx, "SELECT number, entry FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?", limit, most)
	if err != nil {
		return nil, storageError(s.dir, op, err)
	}
	defer rows.Close()
	for rows.Next() {
		var number int64
		var blob []byte
		if err := rows.Scan(&number, &blob); err != nil {
			return nil, storageError(s.dir, op, err)
		}
		e := &tcplabv1.AuditEntry{}
		if err := proto.Unmarshal(blob, e); err != nil {
			return nil, storageError(s.dir, op, err)
		}
		e.Number = uint64(number)
		all = append(all, e)
	}
	return all, storageError(s.dir, op, rows.Err())
}

// messages reads a column of messages.
func (s *Store) messages(ctx context.Context, op string, take func([]byte) error, query string, args ...any) error {
	rows, err := s.reader.QueryContext(ctx, query, args...)
	if err != nil {
		return storageError(s.dir, op, err)
	}
	defer rows.Close()
	for rows.Next() {
		var blob []byte
		if err := rows.Scan(&blob); err != nil {
			return storageError(s.dir, op, err)
		}
		if err := take(blob); err != nil {
			return storageError(s.dir, op, err)
		}
	}
	return storageError(s.dir, op, rows.Err())
}

// deleteOne runs a statement that must change a row. NOT_FOUND, with these words, where it changes none.
func (s *Store) deleteOne(ctx context.Context, op, missing, statement string, args ...any) error {
	return s.changeOne(ctx, op, missing, nil, statement, args...)
}

// changeOne is deleteOne, and calls then as writeThen does.
func (s *Store) changeOne(ctx context.Context, op, missing string, then func(), statement string, args ...any) error {
	return s.writeThen(ctx, op, func(ctx context.Context, conn *sql.Conn) error {
		done, err := conn.ExecContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		changed, err := done.RowsAffected()
		if err == nil && changed == 0 {
			err = rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "%s", missing)
		}
		return err
	}, then)
}
