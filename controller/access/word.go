package access

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// roleWord is a role as people write it.
func roleWord(role tcplabv1.Role) string {
	return strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
}

// codeName is a code as the contract writes it: PERMISSION_DENIED.
func codeName(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var b strings.Builder
	for i, r := range code.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// page reads users by name, at most most of those after one.
func page(members map[member]store.Member, after string, most int) (users []*tcplabv1.Principal, next string) {
	var names []string
	for who := range maps.Keys(members) {
		if who.kind == tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER && who.name > after {
			names = append(names, who.name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if i == most {
			return users, names[i-1]
		}
		users = append(users, members[member{tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, name}].Principal)
	}
	return users, ""
}
