package capture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/trace"
)

// File is a node's pcapng file. One recording after another goes into it; each has interfaces of its own
// there.
type File struct {
	buffer *bufio.Writer
	writer *trace.Writer
}

// NewFile starts a file on w. The caller closes the file, and then what w is.
func NewFile(w io.Writer) *File {
	buffer := bufio.NewWriterSize(w, blockBytes)
	return &File{buffer: buffer, writer: trace.NewWriter(buffer)}
}

// Close writes what is held back.
func (f *File) Close() error {
	return errors.Join(f.writer.Flush(), f.buffer.Flush())
}

// Recorder is a recording at one node. Its goroutine, which has a thread of its own while it waits, ends at
// Stop.
type Recorder struct {
	node    string
	file    *File
	options Options
	ring    *ring
	wake    int           // an eventfd: stop
	ended   chan struct{} // closed by the goroutine; what follows is its own until then

	ids      map[int]int // interface of the file by the kernel's index
	received map[int]uint64
	bytes    uint64
	seen     uint64 // packets that were handed over
	counts   Counts
	err      error
}

// Start records the interfaces of a node, by their names, into the file. The caller ends it with Stop, and
// uses the file for nothing else until then.
func Start(node *netns.Handle, interfaces []string, f *File, o Options) (_ *Recorder, err error) {
	o = o.complete()
	defer func() {
		if err != nil {
			err = fmt.Errorf("capture at %s: %w", node.Name(), err)
		}
	}()
	r := &Recorder{
		node: node.Name(), file: f, options: o, wake: -1,
		ended: make(chan struct{}), ids: make(map[int]int), received: make(map[int]uint64),
	}
	loopback, err := r.enter(node, interfaces)
	if err != nil {
		return nil, err
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	if r.ring, err = openRing(node, loopback, o); err != nil {
		return nil, errors.Join(err, unix.Close(r.wake))
	}
	go r.run()
	return r, nil
}

// Overhead of a file in bytes: its header, and an interface's description and counts, generously.
const (
	fileOverhead      = 128
	interfaceOverhead = 512
)

// enter writes the interfaces' descriptions and returns the loopback's index.
func (r *Recorder) enter(node *netns.Handle, interfaces []string) (loopback int, err error) {
	indexes := make([]int, len(interfaces))
	err = node.Do(func() error {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		loopback = lo.Index
		for i, name := range interfaces {
			device, err := net.InterfaceByName(name)
			if err != nil {
				return fmt.Errorf("interface %s: %w", name, err)
			}
			indexes[i] = device.Index
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	r.bytes = fileOverhead
	for i, name := range interfaces {
		id, err := r.file.writer.Add(trace.Interface{Name: name, Description: r.options.Description, Snap: r.options.Snap}, r.options.words())
		if err != nil {
			return 0, err
		}
		r.ids[indexes[i]] = id
		r.bytes += interfaceOverhead
	}
	return loopback, nil
}

// run takes packets until it is woken, and then what is under way.
func (r *Recorder) run() {
	defer close(r.ended)
	events := []unix.PollFd{{Fd: int32(r.ring.fd), Events: unix.POLLIN}, {Fd: int32(r.wake), Events: unix.POLLIN}}
	for events[1].Revents == 0 {
		if _, err := unix.Poll(events, -1); err != nil && !errors.Is(err, unix.EINTR) {
			r.fail(fmt.Errorf("wait for packets: %w", err))
			break
		}
		r.ring.drain(r.take)
	}
	r.fail(r.finish())
}

// finish waits for the block that is not full yet, until each packet that the kernel counted has been
// handed over or dropped.
func (r *Recorder) finish() error {
	if err := r.ring.shut(); err != nil {
		return err
	}
	var matched uint64
	deadline := time.Now().Add(settled)
	events := []unix.PollFd{{Fd: int32(r.ring.fd), Events: unix.POLLIN}}
	// A processor may still be about to count a packet that it let in before.
	for quiet := 0; quiet < 2; quiet++ {
		ready, err := unix.Poll(events, int(retire.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for packets: %w", err)
		}
		r.ring.drain(r.take)
		packets, dropped, err := r.ring.counted()
		if err != nil {
			return err
		}
		matched += packets
		r.counts.Dropped += dropped
		switch {
		case time.Now().After(deadline):
			// What was not handed over is as good as dropped, and told as such.
			r.counts.Dropped = matched - r.seen
			return nil
		case packets > 0 || ready > 0 || r.seen+r.counts.Dropped < matched:
			quiet = -1
		}
	}
	return nil
}

func (r *Recorder) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// take writes one packet, or counts it.
func (r *Recorder) take(f *frame) {
	r.seen++
	id, known := r.ids[f.index]
	if !known || r.err != nil {
		return // of an interface that a program has made meanwhile
	}
	r.received[id]++
	if len(f.data) > r.options.Snap {
		f.data = f.data[:r.options.Snap]
	}
	size := uint64(trace.PacketBytes(len(f.data)))
	if r.bytes+size > r.options.LimitBytes || r.options.LimitPackets > 0 && r.counts.Packets >= r.options.LimitPackets {
		r.counts.LeftOut++
		return
	}
	way := trace.In
	if f.out {
		way = trace.Out
	}
	if err := r.file.writer.Packet(trace.Packet{Time: f.at, Interface: id, Way: way, Length: f.length, Data: f.data}); err != nil {
		r.fail(err)
		return
	}
	r.bytes += size
	r.counts.Packets++
}

// Stop ends the recording when all that has come is written. It is called once.
func (r *Recorder) Stop() (Counts, error) {
	_, err := unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if err != nil {
		err = fmt.Errorf("wake the recorder: %w", err)
	}
	<-r.ended
	err = errors.Join(err, r.err, r.ring.close(), unix.Close(r.wake))
	now := time.Now()
	dropped := r.counts.Dropped // by the ring, which all interfaces share: told of the first
	for _, id := range slices.Sorted(maps.Values(r.ids)) {
		err = errors.Join(err, r.file.writer.Count(id, now, r.received[id]+dropped, dropped))
		dropped = 0
	}
	if err != nil {
		return r.counts, fmt.Errorf("capture at %s: %w", r.node, err)
	}
	return r.counts, nil
}
