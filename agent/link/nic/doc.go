// Package nic shapes what a host itself sends and receives on an interface of
// its own: a link of any engine that stands in the host's namespace, with both
// ends there, and BPF programs that lead packets into it and out of it.
//
//	                    ┌───────── link (netem, wire) ─────────┐
//	          ┌─▶ near ═╪══════════ forward ══════════▶═╪═ far ─┐
//	sent ─────┤         └──────────────────────────────────────┘ ▼
//	  by the  └──────────── not selected ─────────────────▶ root qdisc ─▶ wire
//	  host
//
// What comes in from the wire takes the same way back, from far to near. Nothing of
// the interface is replaced: its root qdisc, and what others hung there, stay as
// they are, and what has passed the link goes on through them. Only packets that the
// match selects are diverted; all others never meet the link.
//
// From kernel 6.6 the programs are attached by TCX, with links that end with this
// process in any way: the kernel itself undoes them. Before, they hang in a clsact
// qdisc, which is journalled (package guard) and undone by the watchdog or by the
// next agent. The link's own interfaces end with the process in either case.
//
// It refuses interfaces that the host's policy does not name, interfaces
// without Ethernet headers, and a match that selects nothing but what is never
// shaped: ssh, the way to the controller, what keeps addresses and neighbours
// alive (DHCP, neighbour discovery), broadcasts. Never shaped, since the program
// cannot tell what they carry, are fragments, IPv6 packets with extension
// headers, and frames with a VLAN tag (shape the VLAN's own interface).
package nic
