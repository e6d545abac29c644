package standing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// version is what a link was at a time, by its etag.
type version struct {
	etag              string
	forward, backward *tcplabv1.Direction
}

// remembered is how many past versions of each link are kept, so that whoever comes too late
// can be told what has changed.
const remembered = 16

// deployedLink is a link of the lab as it stands.
func deployedLink(l *tcplabv1.Link, reports []*tcplabv1.LinkReport) *tcplabv1.DeployedLink {
	d := &tcplabv1.DeployedLink{
		Name: l.GetName(), A: l.GetA(), B: l.GetB(), Mtu: l.GetMtu(), Engine: l.GetEngine(),
		Forward: proto.CloneOf(l.GetForward()), Backward: proto.CloneOf(l.GetBackward()),
	}
	d.Etag = etag(d)
	for _, r := range reports {
		if r.GetName() == l.GetName() {
			d.Engine = r.GetEngine()
		}
	}
	return d
}

// etag is the first 8 bytes of the SHA-256 of both directions, in hexadecimal.
func etag(l *tcplabv1.DeployedLink) string {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(&tcplabv1.DeployedLink{Forward: l.GetForward(), Backward: l.GetBackward()})
	if err != nil { // only of texts that are no UTF-8, and those came by protobuf
		content = []byte(err.Error())
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// withReports gives links their reports.
func withReports(links []*tcplabv1.DeployedLink, reports []*tcplabv1.LinkReport) error {
	for _, l := range links {
		for _, r := range reports {
			if r.GetName() == l.GetName() {
				l.Reports = append(l.Reports, r)
			}
		}
		if len(l.GetReports()) < 2 {
			return fmt.Errorf("the agent says nothing of link %s", l.GetName())
		}
	}
	return nil
}

// Links reads links of a deployment, read back and counted, in the lab's order; without names all.
func (s *Deployments) Links(ctx context.Context, name string, links []string) ([]*tcplabv1.DeployedLink, error) {
	d, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.read(ctx, d, links)
}

func (s *Deployments) read(ctx context.Context, d *deployment, names []string) ([]*tcplabv1.DeployedLink, error) {
	if err := d.haveLinks(names); err != nil {
		return nil, err
	}
	// Whatever changes between the two is in neither or in both.
	d.change.Lock()
	defer d.change.Unlock()
	read, err := d.agent.ReadLinks(ctx, &tcplabv1.ReadLinksRequest{DeploymentId: d.id(), Links: names})
	if err != nil {
		return nil, agentError(err, "read the links of deployment %s", d.name)
	}
	links := d.links(names)
	return links, withReports(links, read.GetLinks())
}

// links are those with the names, in the lab's order, or all where none is named, without reports.
func (d *deployment) links(names []string) []*tcplabv1.DeployedLink {
	links := d.copy().GetLinks()
	if len(names) > 0 {
		links = slices.DeleteFunc(links, func(l *tcplabv1.DeployedLink) bool { return !slices.Contains(names, l.GetName()) })
	}
	return links
}

// haveLinks refuses a name that no link has.
func (d *deployment) haveLinks(names []string) error {
	for _, name := range names {
		if _, err := d.linkIndex(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployment) linkIndex(name string) (int, error) {
	i := slices.IndexFunc(d.lab.GetLinks(), func(l *tcplabv1.Link) bool { return l.GetName() == name })
	if i >= 0 {
		return i, nil
	}
	var names []string
	for _, l := range d.lab.GetLinks() {
		names = append(names, l.GetName())
	}
	remedy := ""
	if len(names) > 0 && len(names) <= 10 {
		remedy = "Its links are " + strings.Join(names, ", ") + "."
	}
	return i, rpcerr.New(codes.NotFound, rpcerr.NotFound, remedy, "deployment %s has no link %s", d.name, name)
}

// Verify measures links of a deployment, none for longer than the limit, and says what was found, in the
// lab's order; without names all. From then on it is what reading them tells.
func (s *Deployments) Verify(ctx context.Context, name string, links []string, limit time.Duration) ([]*tcplabv1.DeployedLink, error) {
	d, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := d.haveLinks(links); err != nil {
		return nil, err
	}
	// That takes too long to keep everybody from reading links meanwhile: the agent itself refuses
	// changes then, and one just before or after it shows.
	before := d.links(links)
	verified, err := d.agent.Verify(ctx, &tcplabv1.VerifyRequest{
		Term: s.cfg.Term, DeploymentId: d.id(), Links: links, Limit: durationpb.New(limit),
	})
	if err != nil {
		return nil, agentError(err, "verify the links of deployment %s", d.name)
	}
	d.change.Lock()
	now := d.links(links)
	d.change.Unlock()
	for i, l := range now {
		if l.GetEtag() != before[i].GetEtag() {
			return nil, rpcerr.New(codes.Aborted, rpcerr.Changed, "Verify it again.", "link %s was changed while it was verified", l.GetName())
		}
	}
	return now, withReports(now, verified.GetLinks())
}

// Update changes a link, whole or not at all.
func (s *Deployments) Update(ctx context.Context, req *tcplabv1.UpdateLinkRequest) (*tcplabv1.DeployedLink, error) {
	d, err := s.find(ctx, req.GetDeployment())
	if err != nil {
		return nil, err
	}
	i, err := d.linkIndex(req.GetLink().GetName())
	if err != nil {
		return nil, err
	}
	d.change.Lock()
	defer d.change.Unlock()
	now := d.copy().GetLinks()[i]
	if asked := req.GetLink().GetEtag(); asked != "" && asked != now.GetEtag() {
		return nil, d.stale(i, now, asked)
	}
	merged := proto.CloneOf(now)
	if err := merge(merged, req.GetLink(), req.GetUpdateMask().GetPaths()); err != nil {
		return nil, err
	}
	link := d.labLink(i, now)
	link.Forward, link.Backward = merged.GetForward(), merged.GetBackward()
	complete(link, d.labLink(i, now), req.GetUpdateMask().GetPaths())
	if err := d.validate(i, link); err != nil {
		return nil, err
	}
	changed, err := d.agent.ChangeLink(ctx, &tcplabv1.ChangeLinkRequest{Term: s.cfg.Term, DeploymentId: d.id(), Link: link})
	if err != nil {
		return nil, agentError(err, "change link %s", now.GetName())
	}
	merged.Forward, merged.Backward = link.GetForward(), link.GetBackward()
	if merged.Etag = etag(merged); merged.GetEtag() != now.GetEtag() {
		merged.UpdateTime = timestamppb.Now()
		d.mu.Lock()
		d.message.Links[i] = proto.CloneOf(merged)
		d.past[i] = append(d.past[i], version{now.GetEtag(), now.GetForward(), now.GetBackward()})
		if len(d.past[i]) > remembered {
			d.past[i] = slices.Delete(d.past[i], 0, 1)
		}
		d.mu.Unlock()
	}
	return merged, withReports([]*tcplabv1.DeployedLink{merged}, changed.GetLinks())
}

// labLink is the link at the index as the lab would have it now.
func (d *deployment) labLink(i int, now *tcplabv1.DeployedLink) *tcplabv1.Link {
	l := proto.CloneOf(d.lab.GetLinks()[i])
	l.Forward, l.Backward = proto.CloneOf(now.GetForward()), proto.CloneOf(now.GetBackward())
	return l
}

// complete gives a link that was before another one the queues and seeds that nobody asked for: a
// queue that was the default and is not in the mask becomes the default of the new shape.
func complete(link, before *tcplabv1.Link, paths []string) {
	for way, direction := range map[string]*tcplabv1.Direction{"forward": link.GetForward(), "backward": link.GetBackward()} {
		was := before.GetForward()
		if way == "backward" {
			was = before.GetBackward()
		}
		if direction.GetSeed() == 0 {
			direction.Seed = was.GetSeed()
		}
		asked := slices.ContainsFunc(paths, func(path string) bool {
			return path == "*" || path == way || strings.HasPrefix(path, way+".shape.queue") || strings.HasPrefix(path, way+".queue")
		})
		if !asked && isDefaultQueue(before, way) {
			unlimit(direction)
		}
	}
	labs.Complete(&tcplabv1.Lab{Links: []*tcplabv1.Link{link}})
}

// isDefaultQueue reports whether the queue of a direction is what is filled in where none
// is given.
func isDefaultQueue(l *tcplabv1.Link, way string) bool {
	bare := proto.CloneOf(l)
	was, direction := l.GetForward(), bare.GetForward()
	if way == "backward" {
		was, direction = l.GetBackward(), bare.GetBackward()
	}
	unlimit(direction)
	labs.Complete(&tcplabv1.Lab{Links: []*tcplabv1.Link{bare}})
	return proto.Equal(was.GetShape().GetQueue(), direction.GetShape().GetQueue())
}

// unlimit takes the limit from a direction's queue, and the queue where nothing else is said of it.
func unlimit(d *tcplabv1.Direction) {
	queue := d.GetShape().GetQueue()
	if queue == nil {
		return
	}
	queue.Limit = nil
	if proto.Size(queue) == 0 {
		d.Shape.Queue = nil
	}
}

// validate says whether the lab is one with the link in its place.
func (d *deployment) validate(i int, link *tcplabv1.Link) error {
	lab := proto.CloneOf(d.lab)
	lab.Links[i] = link
	lab.Experiments, lab.Expectations = nil, nil
	err := labs.ValidateStanding(lab)
	broken, ok := errors.AsType[labs.Violations](err)
	if !ok {
		return err
	}
	refusal := rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "", "link %s cannot be so: %w", link.GetName(), err)
	for _, v := range broken {
		description := v.Message
		if v.Hint != "" {
			description += " (" + v.Hint + ")"
		}
		field := strings.TrimPrefix(v.Field, fmt.Sprintf("links[%d].", i))
		refusal.Violations = append(refusal.Violations, rpcerr.Violation{Field: strings.Replace(field, ".shape.", ".", 1), Description: description})
	}
	return refusal
}

// stale says what has changed since the etag that was asked for.
func (d *deployment) stale(i int, now *tcplabv1.DeployedLink, asked string) error {
	refusal := rpcerr.New(codes.Aborted, rpcerr.Changed, "Look at the link, and change it again.",
		"link %s has changed since etag %s", now.GetName(), asked)
	d.mu.Lock()
	defer d.mu.Unlock()
	at := slices.IndexFunc(d.past[i], func(v version) bool { return v.etag == asked })
	if at < 0 {
		refusal.Message += fmt.Sprintf(", which is none of its last %d: it is at %s", remembered, now.GetEtag())
		return refusal
	}
	then := d.past[i][at]
	for _, way := range []struct {
		name      string
		then, now *tcplabv1.Direction
	}{{"forward", then.forward, now.GetForward()}, {"backward", then.backward, now.GetBackward()}} {
		for _, c := range differences(way.then, way.now) {
			refusal.Violations = append(refusal.Violations, rpcerr.Violation{
				Field: way.name + "." + c.path, Description: fmt.Sprintf("it was %s, and is %s", c.before, c.after),
			})
		}
	}
	return refusal
}
