package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	endport "github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/agent/rtnl"
)

// tunDevice is where TAPs come from (kernel: Documentation/networking/tuntap.rst).
const tunDevice = "/dev/net/tun"

// tapQueue is how many frames may wait for the loop where the rate does not
// bound them: more than one connection can have in flight with the buffers that
// nodes have (64 MiB, some 46,000 segments), so that what a busy host delays is
// late and not lost. The kernel's default of 500 is 2 ms of small packets; what
// finds it full is dropped and counted. A place in it takes 8 bytes.
const tapQueue = 100_000

// leastQueue is how many may wait in any case.
const leastQueue = 10_000

// queueFor is how many frames may wait for a loop that shapes them so: twice
// what can be in flight and in the queues, by which slow start may overshoot, and bursts
// beside it. To set aside tapQueue for each of a hundred slow links would take
// the kernel 160 MB, and longer than all the rest of them.
func queueFor(d link.Direction, mtu int) int {
	frame := float64((mtu + link.FrameOverhead) * 8)
	held := float64(leastQueue)
	shapes := []link.Shape{d.Shape}
	for _, p := range d.Paths {
		shapes = append(shapes, p.Shape)
	}
	for _, s := range shapes {
		if s.Rate == 0 {
			return tapQueue // nothing bounds it, or a trace does that may say anything
		}
		held += 2 * 2 * float64(s.Rate) * s.Delay.Seconds() / frame
		switch {
		case s.Queue.Packets > 0:
			held += 2 * float64(s.Queue.Packets)
		case s.Queue.Bytes > 0:
			held += 2 * float64(s.Queue.Bytes) * 8 / frame
		default:
			held += 2 * float64(s.Rate) * s.Queue.Time.Seconds() / frame
		}
	}
	return int(min(held, tapQueue))
}

// Offloads that a TAP's holder says it can take (include/uapi/linux/if_tun.h).
const (
	tunChecksum = 0x01 // TUN_F_CSUM
	tunTSO4     = 0x02 // TUN_F_TSO4
	tunTSO6     = 0x04 // TUN_F_TSO6
	tunECN      = 0x08 // TUN_F_TSO_ECN
)

// tap is a TAP interface and the descriptor that it lives by: closing it removes
// the interface. What the node sends leaves its socket as it enters the TAP, and
// what is written has passed the node's stack when the write returns.
type tap struct {
	file  int
	name  string
	index int
	nl    *rtnl.Conn // in the node, for the statistics
	mtu   int
	queue int // frames that may wait

	ring     *uring // the loop's, made when there are several frames to write
	ringless bool   // there will be none
}

// canTAP says why this process cannot make TAPs, or nil.
func canTAP() error {
	file, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return unix.Close(file)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open %s: %w: run as root, or let this user read and write it", tunDevice, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("open %s: %w: load the kernel module tun", tunDevice, err)
	}
	return fmt.Errorf("open %s: %w", tunDevice, err)
}

// newTAP makes the interface, quiet and up, in its node, which sends into
// that direction. With vnet each frame has a header.
func newTAP(p link.Port, sends link.Direction, vnet bool) (*tap, error) {
	end := endport.End{NS: p.Node, Name: p.Name, MAC: p.MAC, MTU: p.MTU, Plain: p.Plain, Direct: true}
	t := &tap{file: -1, name: p.Name, mtu: p.MTU, queue: queueFor(sends, p.MTU)}
	err := p.Node.Do(func() error { return t.open(p, vnet) })
	if err != nil {
		err = fmt.Errorf("make TAP %s in %s: %w", p.Name, p.Node.Name(), err)
	} else {
		t.nl, err = rtnl.Dial(p.Node)
	}
	if err == nil {
		t.index, err = endport.Quiet(end, t.nl)
	}
	if err == nil {
		err = t.configure(p)
	}
	if err == nil {
		err = endport.Up(end, t.nl, t.index)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// open makes the interface in the namespace of this thread.
func (t *tap) open(p link.Port, vnet bool) error {
	file, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", tunDevice, err)
	}
	t.file = file
	request, err := unix.NewIfreq(p.Name)
	if err != nil {
		return err
	}
	// Exclusive: a TAP of that name that is there already is not ours.
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	if vnet {
		flags |= unix.IFF_VNET_HDR
	}
	request.SetUint16(flags)
	if err := unix.IoctlIfreq(file, unix.TUNSETIFF, request); err != nil {
		return err
	}
	offloads := 0
	if p.Plain {
		offloads = tunChecksum | tunTSO4 | tunTSO6 | tunECN
	}
	if err := unix.IoctlSetInt(file, unix.TUNSETOFFLOAD, offloads); err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	return nil
}

// configure gives the interface what the port says. A TAP takes every frame at
// once, so a qdisc before it would hold none: without one each frame takes a lock
// less, and the interface 2.4 MB of memory that pfifo_fast sets aside for a
// queue of this length. A kernel before 4.3 keeps it.
func (t *tap) configure(p link.Port) error {
	err := t.nl.Do(rtnl.NoQueue(t.index))
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err == nil {
		err = t.nl.Do(rtnl.SetLink(t.index, p.MAC, p.MTU, t.queue))
	}
	if err != nil {
		return fmt.Errorf("configure %s in %s (address %v, MTU %d): %w", p.Name, p.Node.Name(), p.MAC, p.MTU, err)
	}
	return nil
}

func (t *tap) fd() int { return t.file }

func (t *tap) read(buf []byte, now int64) (int, int64, error) {
	// Not unix.Read: this call does not block, and need not tell the scheduler.
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(t.file), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	switch e {
	case 0:
		return int(n), now, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, 0, nil
	}
	return 0, 0, e
}

// fault has nothing to say that read does not.
func (t *tap) fault() error { return nil }

// several is how many frames a ring writes sooner than as many calls.
const several = 3

func (t *tap) write(frames []*frame, lost []bool) (n int) {
	if len(frames) >= several && t.ring == nil && !t.ringless {
		// The links of a quiet lab never need one. An error says that this host has
		// none to give, as many containers do.
		t.ring, _ = newURing(t.file)
		t.ringless = t.ring == nil
	}
	if t.ring != nil && len(frames) >= several {
		var err error
		if n, err = t.ring.write(t.file, frames, lost); err == nil {
			return n
		}
		_ = t.dropRing() // its end changes nothing
	}
	return n + writeEach(frames[n:], lost[n:], func(data []byte) unix.Errno {
		_, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(t.file), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)))
		return e
	})
}

// dropRing has all further frames written one by one.
func (t *tap) dropRing() error {
	ring := t.ring
	t.ring, t.ringless = nil, true
	if ring == nil {
		return nil
	}
	return ring.close()
}

// drops is how many frames found the TAP's queue full.
func (t *tap) drops() (uint64, error) {
	iface, err := t.nl.ByIndex(t.index)
	if err != nil {
		return 0, fmt.Errorf("read the statistics of %s: %w", t.name, err)
	}
	return iface.TxDropped, nil
}

// prepare makes the queue longer where the direction wants it. What waits stays.
func (t *tap) prepare(to link.Direction) error {
	queue := queueFor(to, t.mtu)
	if queue <= t.queue {
		return nil
	}
	if err := t.nl.Do(rtnl.SetLink(t.index, nil, 0, queue)); err != nil {
		return fmt.Errorf("make room for %d frames in %s: %w", queue, t.name, err)
	}
	t.queue = queue
	return nil
}

func (t *tap) close() error {
	var errs []error
	if t.nl != nil {
		errs = append(errs, t.nl.Close())
	}
	errs = append(errs, t.dropRing())
	if t.file >= 0 {
		errs = append(errs, unix.Close(t.file))
	}
	return errors.Join(errs...)
}
