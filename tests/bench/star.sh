#!/bin/sh
# star.sh PREFIX N: what people write without tcplab. N nodes on a bridge, each
# link shaped to 10 Mbit/s in both directions by tbf (a kernel may have no netem),
# up and down again. It is the peer of "a star" in the table of figures.
set -eu
prefix=$1 nodes=$2

down() {
	for i in $(seq "$nodes"); do
		ip netns del "$prefix$i" 2>/dev/null || true
	done
	ip netns del "${prefix}hub" 2>/dev/null || true
}
trap down EXIT

ip netns add "${prefix}hub"
ip -n "${prefix}hub" link add bridge type bridge
ip -n "${prefix}hub" link set bridge up
for i in $(seq "$nodes"); do
	ip netns add "$prefix$i"
	ip -n "$prefix$i" link set lo up
	ip -n "$prefix$i" link add eth0 type veth peer name "eth$i" netns "${prefix}hub"
	ip -n "$prefix$i" addr add "10.200.0.$i/24" dev eth0
	ip -n "$prefix$i" addr add "fd00:200::$i/64" dev eth0 nodad
	ip -n "$prefix$i" link set eth0 up
	ip -n "${prefix}hub" link set "eth$i" master bridge up
	tc -n "$prefix$i" qdisc add dev eth0 root tbf rate 10mbit burst 5kb limit 150kb
	tc -n "${prefix}hub" qdisc add dev "eth$i" root tbf rate 10mbit burst 5kb limit 150kb
done
