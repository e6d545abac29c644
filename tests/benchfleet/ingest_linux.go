package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/controller/fleet"
	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// What the ingest is made of: hosts with a run each, whose trials leave chunks as sealed samples are.
const (
	ingestHosts  = 8
	chunkBytes   = 4 << 20
	chunksATrial = 8
	pieceBytes   = 256 << 10 // as agent/service.go sends them
)

// drive has each host carry out a run without an end, until ctx ends.
func drive(ctx context.Context, st *store.Store, hosts *fleet.Fleet, term uint64, log *slog.Logger) error {
	driver := run.NewDriver(run.Config{Store: st, Hosts: hosts, Term: term, Lasting: true, Log: log})
	for _, name := range connected(hosts) {
		options := &tcplabv1.RunOptions{Repeat: 1000, Timeout: durationpb.New(2 * time.Hour)}
		lab := &tcplabv1.Lab{Name: "ingest", Nodes: []*tcplabv1.Node{{Name: "client", Host: name}}}
		plan, err := run.NewPlan([]*tcplabv1.Lab{lab}, options)
		if err != nil {
			return err
		}
		for range 10 { // one after another
			if _, err := driver.Create(ctx, &tcplabv1.Run{Lab: lab.GetName(), Options: options, TrialsCount: plan.Trials()}, plan, store.Request{}); err != nil {
				return err
			}
		}
	}
	driver.Drive(ctx)
	return nil
}

// samples are agents that have carried out each trial at once, and leave chunks of it.
type samples struct {
	idleAgent
	dir     string  // the controller's state, to see what is on disk when a trial is acknowledged
	rate    float64 // bytes a second that all leave together; 0: as fast as they are fetched
	content []byte
	chunk   *tcplabv1.Artifact
	began   time.Time

	left    atomic.Int64 // bytes
	stored  atomic.Int64 // bytes that were acknowledged and are on disk
	trials  atomic.Int64
	mu      sync.Mutex
	failure error // the first
}

func newSamples(dir string, rate float64) *samples {
	content := make([]byte, chunkBytes)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(content) // never fails
	sum := sha256.Sum256(content)
	return &samples{
		dir: dir, rate: rate, content: content, began: time.Now(),
		chunk: &tcplabv1.Artifact{Size: chunkBytes, Sha256: sum[:]},
	}
}

func chunkName(i int) string { return fmt.Sprintf("samples-%d.parquet", i) }

// Apply is AgentService's.
func (*samples) Apply(context.Context, *tcplabv1.ApplyRequest) (*tcplabv1.ApplyResponse, error) {
	return &tcplabv1.ApplyResponse{}, nil
}

// Verify is AgentService's.
func (*samples) Verify(context.Context, *tcplabv1.VerifyRequest) (*tcplabv1.VerifyResponse, error) {
	return &tcplabv1.VerifyResponse{}, nil
}

// StartTrial is AgentService's.
func (*samples) StartTrial(context.Context, *tcplabv1.StartTrialRequest) (*tcplabv1.StartTrialResponse, error) {
	return &tcplabv1.StartTrialResponse{}, nil
}

// Remove is AgentService's.
func (*samples) Remove(context.Context, *tcplabv1.RemoveRequest) (*tcplabv1.RemoveResponse, error) {
	return &tcplabv1.RemoveResponse{}, nil
}

// WatchTrial is AgentService's: the trial ends when its share of the rate is due.
func (s *samples) WatchTrial(_ *tcplabv1.WatchTrialRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialResponse]) error {
	const all = chunksATrial * chunkBytes
	before := s.left.Add(all) - all
	if s.rate > 0 {
		timer := time.NewTimer(time.Until(s.began.Add(time.Duration(float64(before) / s.rate * float64(time.Second)))))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
	result := &tcplabv1.TrialResult{}
	for i := range chunksATrial {
		result.Artifacts = append(result.Artifacts, &tcplabv1.Artifact{Name: chunkName(i), Size: s.chunk.GetSize(), Sha256: s.chunk.GetSha256()})
	}
	return stream.Send(&tcplabv1.WatchTrialResponse{Event: &tcplabv1.WatchTrialResponse_TrialEnded{TrialEnded: &tcplabv1.TrialEnded{Result: result}}})
}

// ReadArtifact is AgentService's.
func (s *samples) ReadArtifact(req *tcplabv1.ReadArtifactRequest, stream grpc.ServerStreamingServer[tcplabv1.ReadArtifactResponse]) error {
	for at := int(req.GetOffset()); at < len(s.content); at += pieceBytes {
		if err := stream.Send(&tcplabv1.ReadArtifactResponse{Data: s.content[at:min(at+pieceBytes, len(s.content))]}); err != nil {
			return err
		}
	}
	return nil
}

// AcknowledgeTrial is AgentService's. What is acknowledged must be on disk, and goes: the disk is not what is measured.
func (s *samples) AcknowledgeTrial(_ context.Context, req *tcplabv1.AcknowledgeTrialRequest) (*tcplabv1.AcknowledgeTrialResponse, error) {
	runID, number, _ := strings.Cut(req.GetTrialId(), ".")
	folder := filepath.Join(s.dir, "artifacts", runID, number)
	size := int64(0)
	err := filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err == nil && size != chunksATrial*chunkBytes {
		err = fmt.Errorf("%d bytes of it are on disk", size)
	}
	if err == nil {
		err = os.RemoveAll(folder)
	}
	if err != nil {
		err = fmt.Errorf("trial %s was acknowledged: %w", req.GetTrialId(), err)
		s.mu.Lock()
		if s.failure == nil {
			s.failure = err
		}
		s.mu.Unlock()
		return nil, status.Error(codes.DataLoss, err.Error())
	}
	s.stored.Add(size)
	s.trials.Add(1)
	return &tcplabv1.AcknowledgeTrialResponse{}, nil
}

// The targets of the ingest: bytes a second, and how much the second half's memory may be above the first's.
const (
	ingestLeast  = 50e6
	ingestGrowth = 1.1
)

// ingest has hosts leave chunks for a while, and prints what the controller took and what memory it held.
func ingest(length time.Duration, rate float64) (err error) {
	dir, err := os.MkdirTemp("", "tcplab-benchfleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := startController(dir, "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = c.end() }()
	credentials, err := c.join("ingest", ingestHosts)
	if err != nil {
		return err
	}
	agent := newSamples(dir, rate)
	agents := simulate(credentials, c.address, agent)
	defer agents.stop()
	if _, err := c.ask(fmt.Sprintf("await %d", ingestHosts)); err != nil {
		return err
	}
	agent.began = time.Now()
	if _, err := c.ask("drive"); err != nil {
		return err
	}
	var memory []int64 // each second
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range int(length / time.Second) {
		<-tick.C
		held, err := residentOf(c.cmd.Process.Pid)
		if err != nil {
			return err
		}
		memory = append(memory, held)
	}
	took, stored := time.Since(agent.began), agent.stored.Load()
	agent.mu.Lock()
	failure := agent.failure
	agent.mu.Unlock()
	if err := errors.Join(failure, c.end()); err != nil {
		return err
	}
	got := float64(stored) / took.Seconds()
	first, second := highest(memory[:len(memory)/2]), highest(memory[len(memory)/2:])
	fmt.Fprintf(os.Stdout, "%10s  %10s  %8s  %22s  %22s\n", "for", "MB/s", "trials", "MB held, first half", "second half")
	fmt.Fprintf(os.Stdout, "%10v  %10.1f  %8d  %22.1f  %22.1f\n", took.Round(time.Second), got/1e6, agent.trials.Load(), float64(first)/1e6, float64(second)/1e6)
	if got < ingestLeast {
		err = errors.Join(err, fmt.Errorf("%w: %.1f MB/s were stored and acknowledged, wanted are %.0f", errMissed, got/1e6, ingestLeast/1e6))
	}
	if float64(second) > ingestGrowth*float64(first) {
		err = errors.Join(err, fmt.Errorf("%w: memory grew from %.1f to %.1f MB", errMissed, float64(first)/1e6, float64(second)/1e6))
	}
	return err
}

func highest(values []int64) (most int64) {
	for _, v := range values {
		most = max(most, v)
	}
	return most
}
