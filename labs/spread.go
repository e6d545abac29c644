package labs

import (
	"fmt"
	"reflect"
	"slices"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// What the contract allows a lab (proto/tcplab/v1/lab.proto); ranges and
// topologies must not make more, or a short file would fill the memory.
const (
	maxLinks = 8192
	maxFlows = 1000
)

// spread turns what is written shortly into what it stands for: topologies into
// nodes and links, ranges into nodes, links and flows. All of it keeps the places
// that it was written at. After it the file says everything at length.
func (r *report) spread(s *labSpec) {
	s.Nodes = r.spreadNodes(s.Nodes)
	links := r.spreadLinks(s.Links)
	for i := range s.Topology {
		nodes, made := r.expandTopology(&s.Topology[i])
		s.Nodes = r.addNodes(nodes, s.Nodes)
		links = append(made, links...)
	}
	if len(links) > maxLinks {
		r.add(s.At.at, "", "the lab has %d links, more than %d", len(links), maxLinks)
		links = nil
	}
	s.Links = links
	for i := range s.Experiments {
		s.Experiments[i].Flows = r.spreadFlows(s.Experiments[i].Flows)
	}
}

func (r *report) spreadNodes(nodes nodeList) nodeList {
	var out nodeList
	for _, n := range nodes {
		for _, name := range r.namesOf(n.at.at, n.name) {
			n.name = name.name
			out = append(out, n)
		}
		if len(out) > maxNames {
			r.add(n.at.at, "", "the lab has more than %d nodes", maxNames)
			return nil
		}
	}
	return out
}

// addNodes puts the nodes of a topology before those of the file. One that the file
// names too has what the file says of it, and the topology's kind where it says
// none.
func (r *report) addNodes(made, file nodeList) nodeList {
	for i := range made {
		named := slices.IndexFunc(file, func(n namedNode) bool { return n.name == made[i].name })
		if named < 0 {
			continue
		}
		kind := made[i].spec.Kind
		made[i] = file[named]
		if made[i].spec.Kind == nil {
			made[i].spec.Kind = kind
		}
		file = slices.Delete(slices.Clone(file), named, named+1)
	}
	if len(made)+len(file) > maxNames {
		r.add(made[0].at.at, "", "the lab has more than %d nodes", maxNames)
		return file
	}
	return append(made, file...)
}

func (r *report) spreadLinks(links []linkSpec) []linkSpec {
	var out []linkSpec
	for i := range links {
		l := &links[i]
		between := l.At.get("between")
		if between == nil || len(l.Between) != 2 {
			out = append(out, *l) // which is told where it is read
			continue
		}
		couples := r.couples(between.at, "this link", l.Between[0], l.Between[1], between.item(0).at, between.item(1).at)
		if len(out)+len(couples) > maxLinks {
			r.add(between.at, "", "the lab has more than %d links", maxLinks)
			return nil
		}
		for _, c := range couples {
			out = append(out, l.between(c))
		}
		r.strangers(l, couples)
	}
	return out
}

// between is the link between two nodes. Its name gets the index, and of the
// addresses it has those of its own nodes.
func (l *linkSpec) between(c couple) linkSpec {
	one := *l
	one.Between = []string{c.a, c.b}
	if c.index == "" {
		return one
	}
	if one.Name != "" {
		one.Name += c.index
	}
	one.Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(of nodeAddresses) bool {
		return of.node != c.a && of.node != c.b
	})
	one.Interface = slices.DeleteFunc(slices.Clone(l.Interface), func(of textPair) bool {
		return of.key != c.a && of.key != c.b
	})
	return one
}

// strangers reports addresses of nodes that none of a range's links joins. Of a
// single link the converter does.
func (r *report) strangers(l *linkSpec, couples []couple) {
	if len(couples) < 2 {
		return
	}
	for _, of := range l.Addresses {
		var names []string
		for _, c := range couples {
			names = append(names, c.a, c.b)
		}
		if !slices.Contains(names, of.node) {
			r.add(of.at, didYouMean(of.node, names), "these links do not join a node %q", of.node)
		}
	}
}

// spreadFlows makes a flow for each couple of clients and servers. Its name
// gets the index.
func (r *report) spreadFlows(flows []flowSpec) []flowSpec {
	var out []flowSpec
	for i := range flows {
		f := &flows[i]
		field, ends := f.ends()
		if !ends.IsValid() {
			out = append(out, *f)
			continue
		}
		at := ends.FieldByName("At").Interface().(*node)
		from, to := at.get("from"), at.get("to")
		if from == nil || to == nil {
			out = append(out, *f)
			continue
		}
		couples := r.couples(from.at, "this flow", ends.FieldByName("From").String(), ends.FieldByName("To").String(), from.at, to.at)
		if len(out)+len(couples) > maxFlows {
			r.add(from.at, "", "the experiment has more than %d flows", maxFlows)
			return nil
		}
		for _, c := range couples {
			one := *f
			if c.index != "" {
				one.Name += c.index
			}
			own := reflect.New(ends.Type())
			own.Elem().Set(ends)
			own.Elem().FieldByName("From").SetString(c.a)
			own.Elem().FieldByName("To").SetString(c.b)
			reflect.ValueOf(&one).Elem().Field(field).Set(own)
			out = append(out, one)
		}
	}
	return out
}

// ends is the kind of the flow: its field, and what that points to. All kinds have From
// and To. It is not valid where the flow has none, or several: that is told
// where the flow is read.
func (f *flowSpec) ends() (field int, ends reflect.Value) {
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		p := v.Field(i)
		if p.Kind() != reflect.Pointer || p.IsNil() || p.Type().Elem().Kind() != reflect.Struct {
			continue
		}
		if from := p.Elem().FieldByName("From"); from.IsValid() && from.Kind() == reflect.String {
			if ends.IsValid() {
				return 0, reflect.Value{}
			}
			field, ends = i, p.Elem()
		}
	}
	return field, ends
}

// sizeOf is how much of the memory a lab takes, in nodes of a file.
func sizeOf(lab *tcplabv1.Lab) int {
	n := len(lab.GetNodes()) + 10*len(lab.GetLinks())
	for _, e := range lab.GetExperiments() {
		n += 10 * len(e.GetFlows())
	}
	return n
}

// kindOf is a kind as a file would have it.
func kindOf(k tcplabv1.NodeKind) *nodeKind {
	kind := nodeKind(k)
	return &kind
}

// describeCount is "3 nodes" or "1 node".
func describeCount(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
