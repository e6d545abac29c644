package nic

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// newSwitch makes the switch of the programs at one interface: off.
func newSwitch() (*ebpf.Map, error) {
	on, err := ebpf.NewMap(&ebpf.MapSpec{Name: "tcplab_on", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make a BPF map: %w", err)
	}
	return on, nil
}

// turn turns the switch.
func turn(on *ebpf.Map, value bool) error {
	number := uint32(0)
	if value {
		number = 1
	}
	if err := on.Update(uint32(0), number, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("turn the diversion: %w", err)
	}
	return nil
}

// loadProgram gives the program to the kernel, which checks it.
func loadProgram(name string, code asm.Instructions) (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, Instructions: code, License: "MIT"})
	if err != nil {
		return nil, fmt.Errorf("load the BPF program %s: %w", name, err)
	}
	return program, nil
}
