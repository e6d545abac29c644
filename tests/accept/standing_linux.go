package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// standingLab is a link with everything that a change must not disturb: a delay, a rate
// and a queue.
const standingLab = "name: standing\nnodes: [client, server]\nlinks:\n  - {between: [client, server], delay: 20ms, rate: 100Mbit, queue: 1000}\n"

// changedLive sends UDP (no more of it than iperf3's receive buffer takes at once when a delay
// gets shorter) through a standing lab while its link is changed again and again,
// and wants every datagram, in order.
func changedLive(ctx context.Context, b *Bench) (_ string, err error) {
	before, err := standing(b.Tcplab)
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.Dir, "standing.yaml")
	if err := os.WriteFile(file, []byte(standingLab), 0o600); err != nil {
		return "", err
	}
	if _, err := b.must(ctx, "up", file, "--name", "live"); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			// What was to be measured has failed; that it is taken away is all that is left to do.
			_, _ = b.Run(context.WithoutCancel(ctx), "down", "live")
		}
	}()
	server, err := b.begin(ctx, "exec", "live", "server", "--", "iperf3", "--server", "--one-off")
	if err != nil {
		return "", err
	}
	defer server.end()
	// Port 5201 in the state LISTEN.
	var client Result
	deadline := time.Now().Add(10 * time.Second)
	for {
		listening, err := b.Run(ctx, "exec", "live", "server", "--", "/bin/sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1451 .* 0A '")
		if err != nil {
			return "", err
		}
		if listening.Status == 0 {
			break
		}
		if time.Now().After(deadline) {
			return "", errors.New("iperf3 does not listen within 10 s")
		}
	}
	done := make(chan error, 1)
	go func() {
		var err error
		client, err = b.Run(ctx, "exec", "live", "client", "--", "iperf3", "--client", "server", "--udp", "--bitrate", "10M", "--length", "1000", "--time", "5", "--json")
		done <- err
	}()
	changes := []string{
		"forward.delay=40ms", "forward.delay=1ms", "forward.rate=40Mbit", "forward.queue=2000", "forward.rate=1Gbit",
		"forward.delay=30ms", "delay=10ms", "backward.rate=10Mbit", "forward.rate=30Mbit",
	}
	made := 0
	for err == nil {
		select {
		case err = <-done:
			if err == nil {
				err = errEnough
			}
		default:
			_, err = b.must(ctx, "link", "set", "live/client-server", changes[made%len(changes)])
			made++
		}
	}
	if !errors.Is(err, errEnough) {
		return "", err
	}
	var report struct {
		End struct {
			Sum struct {
				Packets int `json:"packets"`
				Lost    int `json:"lost_packets"`
			} `json:"sum"`
			Streams []struct {
				UDP struct {
					OutOfOrder int `json:"out_of_order"`
				} `json:"udp"`
			} `json:"streams"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(client.Stdout), &report); err != nil || len(report.End.Streams) == 0 {
		return "", fmt.Errorf("read iperf3's report (exit status %d: %s): %w", client.Status, lastLines(client.Stderr), err)
	}
	figure := fmt.Sprintf("%d changes under %d datagrams: %d lost, %d out of order", made, report.End.Sum.Packets, report.End.Sum.Lost, report.End.Streams[0].UDP.OutOfOrder)
	if made < len(changes) || report.End.Sum.Packets < 5000 {
		return figure, errors.New("too little happened to say anything")
	}
	shown, err := b.must(ctx, "link", "show", "live", "-o", "json")
	if err != nil {
		return figure, err
	}
	links := &tcplabv1.ListLinksResponse{}
	if err := protojson.Unmarshal([]byte(shown.Stdout), links); err != nil {
		return figure, fmt.Errorf("read what link show printed: %w", err)
	}
	for _, r := range links.GetLinks()[0].GetReports() {
		if c := r.GetCounters(); c.GetLost()+c.GetOverflow()+c.GetEarly()+c.GetFailed() > 0 {
			return figure, fmt.Errorf("the link dropped frames: %v", c)
		}
	}
	if report.End.Sum.Lost > 0 || report.End.Streams[0].UDP.OutOfOrder > 0 {
		return figure, errors.New("a change cost packets")
	}
	down, err := b.must(ctx, "down", "live")
	if err != nil {
		return figure, err
	}
	figure += fmt.Sprintf("; down in %.0f ms", down.Took.Seconds()*1e3)
	if down.Took > goneWithin {
		return figure, fmt.Errorf("more than %v", goneWithin)
	}
	server.end()
	if after, err := standing(b.Tcplab); err != nil || !slices.Equal(before, after) {
		return figure, errors.Join(fmt.Errorf("left behind: %v, before: %v", after, before), err)
	}
	return figure, nil
}

// errEnough says that what was watched has ended as it should.
var errEnough = errors.New("enough")

// holderKilled kills the holder of a standing lab, with programs running in it, and looks for
// what it left.
func holderKilled(ctx context.Context, b *Bench) (string, error) {
	before, err := standing(b.Tcplab)
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.Dir, "standing.yaml")
	if err := os.WriteFile(file, []byte(standingLab), 0o600); err != nil {
		return "", err
	}
	up, err := b.must(ctx, "up", file, "--name", "killed", "-o", "json")
	if err != nil {
		return "", err
	}
	deployment := &tcplabv1.Deployment{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(up.Stdout), deployment); err != nil {
		return "", fmt.Errorf("read what up printed: %w", err)
	}
	const sign = "tcplab-accept-sleeper"
	program, err := b.begin(ctx, "exec", "killed", "client", "--", "/bin/sh", "-c", "exec -a "+sign+" sleep 600 || sleep 600")
	if err != nil {
		return "", err
	}
	defer program.end()
	if err := syscall.Kill(int(deployment.GetHolderPid()), syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill the holder %d: %w", deployment.GetHolderPid(), err)
	}
	program.end()
	took, err := allGone(b.Tcplab, before)
	figure := fmt.Sprintf("all gone within %.0f ms", took.Seconds()*1e3)
	if err != nil {
		return figure, err
	}
	listed, err := b.must(ctx, "ps", "-o", "json")
	if err != nil {
		return figure, err
	}
	if strings.Contains(listed.Stdout, "killed") {
		return figure, errors.New("ps still lists it")
	}
	if _, err := b.must(ctx, "up", file, "--name", "killed"); err != nil {
		return figure, fmt.Errorf("the name is not free again: %w", err)
	}
	_, err = b.must(ctx, "down", "killed")
	return figure, err
}

// must runs tcplab and wants exit status 0.
func (b *Bench) must(ctx context.Context, args ...string) (Result, error) {
	result, err := b.Run(ctx, args...)
	if err == nil && result.Status != 0 {
		err = fmt.Errorf("tcplab %s: exit status %d: %s", strings.Join(args, " "), result.Status, lastLines(result.Stderr))
	}
	return result, err
}

// begun is a tcplab that runs beside a check.
type begun struct {
	command *exec.Cmd
	ended   chan struct{}
}

// begin starts tcplab; end ends it.
func (b *Bench) begin(ctx context.Context, args ...string) (*begun, error) {
	command := exec.CommandContext(ctx, b.Tcplab, args...)
	command.Dir = b.Root
	command.Env = b.environment()
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start tcplab %s: %w", args[0], err)
	}
	p := &begun{command: command, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = command.Wait() // it was told to end
	}()
	return p, nil
}

func (p *begun) end() {
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
	<-p.ended
}
