package draw

import (
	"math"
	"slices"
)

// places gives each node its spot.
func (g *graph) places() []spot {
	spots := make([]spot, len(g.nodes))
	var core []int
	leaves := make(map[int][]int) // by the node that they hang at
	for n := range g.nodes {
		if g.isLeaf(n) {
			at := g.neighbours(n)[0]
			leaves[at] = append(leaves[at], n)
		} else {
			core = append(core, n)
		}
	}
	switch line := g.coreLine(core); {
	case len(core) == 1:
		g.around(spots, core[0], leaves[core[0]])
	case line != nil:
		g.along(spots, line, leaves)
	default:
		g.circle(spots, core, leaves)
	}
	return spots
}

// coreLine is the core from one end to the other where it is a line, else nil.
func (g *graph) coreLine(core []int) []int {
	var ends []int
	next := make(map[int][]int, len(core))
	for _, n := range core {
		for _, other := range g.neighbours(n) {
			if slices.Contains(core, other) {
				next[n] = append(next[n], other)
			}
		}
		switch len(next[n]) {
		case 1:
			ends = append(ends, n)
		case 2:
		default:
			return nil
		}
	}
	if len(ends) != 2 {
		return nil
	}
	line := []int{ends[0]}
	for before := -1; ; {
		last := line[len(line)-1]
		i := slices.IndexFunc(next[last], func(n int) bool { return n != before })
		if i < 0 {
			break
		}
		before = last
		line = append(line, next[last][i])
	}
	if len(line) != len(core) {
		return nil
	}
	return line
}

// column stacks nodes around the height of the line.
func (g *graph) column(spots []spot, nodes []int, x float64) {
	for i, n := range nodes {
		spots[n] = spot{x, (float64(i) - float64(len(nodes)-1)/2) * down}
	}
}

// along puts the core on a line from left to right: the endpoints at its ends
// beyond them, all others below.
func (g *graph) along(spots []spot, line []int, leaves map[int][]int) {
	for i, n := range line {
		spots[n] = spot{float64(i) * across, 0}
		switch {
		case i == 0:
			g.column(spots, leaves[n], -across)
		case i == len(line)-1:
			g.column(spots, leaves[n], float64(i+1)*across)
		default:
			for j, leaf := range leaves[n] {
				spots[leaf] = spot{float64(i) * across, float64(j+1)*(down+60) + g.height(n)/2}
			}
		}
	}
}

// around puts the endpoints of a hub on a circle, or, where there are many, to its
// left and right, so that boxes and labels have room.
func (g *graph) around(spots []spot, hub int, leaves []int) {
	spots[hub] = spot{}
	const most, radius = 10, 460.0
	if len(leaves) > most {
		half := (len(leaves) + 1) / 2
		g.column(spots, leaves[:half], -1.5*across)
		g.column(spots, leaves[half:], 1.5*across)
		return
	}
	for i, leaf := range leaves {
		angle := 2*math.Pi*float64(i)/float64(len(leaves)) - math.Pi/2
		if len(leaves) == 2 {
			angle += math.Pi / 2
		}
		spots[leaf] = spot{radius * math.Cos(angle), radius * math.Sin(angle)}
	}
}

// circle puts the core on a circle and the endpoints outside, behind the nodes that
// they hang at.
func (g *graph) circle(spots []spot, core []int, leaves map[int][]int) {
	const apart = across
	room := 0.0
	share := make([]float64, len(core))
	for i, n := range core {
		share[i] = max(1, float64(len(leaves[n]))*0.6)
		room += share[i]
	}
	radius := max(apart*room/(2*math.Pi), 300)
	before := 0.0
	for i, n := range core {
		angle := 2*math.Pi*(before+share[i]/2)/room - math.Pi/2
		before += share[i]
		spots[n] = spot{radius * math.Cos(angle), radius * math.Sin(angle)}
		hung := leaves[n]
		for j, leaf := range hung {
			spread := angle + (float64(j)-float64(len(hung)-1)/2)*260/(radius+apart)
			spots[leaf] = spot{(radius + apart) * math.Cos(spread), (radius + apart) * math.Sin(spread)}
		}
	}
}
