package program

import (
	"maps"
	"slices"
)

// searchPath is where programs are looked for: that of Debian's /etc/login.defs for root.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environment is a clean environment of root's, "NAME=value" by name, with own's variables
// in it and in the place of its own. home is HOME; empty: "/".
func Environment(home string, terminal bool, own map[string]string) []string {
	return EnvironmentOf("root", home, terminal, own)
}

// EnvironmentOf is Environment for a user of that name.
func EnvironmentOf(user, home string, terminal bool, own map[string]string) []string {
	if home == "" {
		home = "/"
	}
	all := map[string]string{
		"PATH": searchPath, "HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "LANG": "C.UTF-8",
	}
	if terminal {
		all["TERM"] = "xterm"
	}
	maps.Copy(all, own)
	env := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}
