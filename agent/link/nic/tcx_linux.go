package nic

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	tcx "github.com/cilium/ebpf/link"
)

// attachTCX hangs a program at an interface of this thread's namespace, before
// all that hang there already: what is diverted comes by again, so that others
// see each packet once. The kernel takes it away when the last descriptor of the
// link closes.
func attachTCX(index int, s side, program *ebpf.Program) (tcx.Link, error) {
	attached, err := tcx.AttachTCX(tcx.TCXOptions{Interface: index, Program: program, Attach: tcxAttach(s), Anchor: tcx.Head()})
	if err != nil {
		return nil, fmt.Errorf("attach a BPF program by TCX: %w", err)
	}
	return attached, nil
}

func tcxAttach(s side) ebpf.AttachType {
	if s == received {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

// tcxHook is a program that hangs by TCX.
type tcxHook struct{ link tcx.Link }

// intact is nil while the program hangs where it was hung. Taken away by another, or
// with its interface, the link is left without one.
func (h *tcxHook) intact() error {
	info, err := h.link.Info()
	if err != nil {
		return err
	}
	if on := info.TCX(); on != nil && on.Ifindex == 0 {
		return errors.New("the interface is gone, or somebody has detached the program from it")
	}
	return nil
}

func (h *tcxHook) close() error { return h.link.Close() }
