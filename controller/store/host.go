package store

import (
	"context"
	"database/sql"

	"google.golang.org/protobuf/proto"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// NextTerm counts a start of a controller on this directory: every command of it is of this term, and
// agents refuse those of earlier ones.
func (s *Store) NextTerm(ctx context.Context) (term uint64, err error) {
	err = s.write(ctx, "begin a term", func(ctx context.Context, conn *sql.Conn) error {
		var value int64
		err := conn.QueryRowContext(ctx, `INSERT INTO counters (name, value) VALUES ('term', 1)
			ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value`).Scan(&value)
		term = uint64(value)
		return err
	})
	return term, err
}

// Hosts reads all hosts by name, without what is only so while they are connected.
func (s *Store) Hosts(ctx context.Context) (all []*tcplabv1.FleetHost, err error) {
	err = s.messages(ctx, "read the hosts", func(blob []byte) error {
		host := &tcplabv1.FleetHost{}
		all = append(all, host)
		return proto.Unmarshal(blob, host)
	}, "SELECT host FROM hosts ORDER BY name")
	return all, err
}

// PutHost keeps a host, in place of what was kept of it.
func (s *Store) PutHost(ctx context.Context, host *tcplabv1.FleetHost) error {
	blob, err := proto.Marshal(host)
	if err != nil {
		return err
	}
	return s.write(ctx, "store a host", func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, "INSERT OR REPLACE INTO hosts (name, host) VALUES (?, ?)", host.GetName(), blob)
		return err
	})
}

// DeleteHost forgets a host. NOT_FOUND where there is none of the name.
func (s *Store) DeleteHost(ctx context.Context, name string) error {
	return s.deleteOne(ctx, "forget a host", "no host is called "+name, "DELETE FROM hosts WHERE name = ?", name)
}
