package fleet

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// SkewClock has the wall clock of a host's process, or of "controller", be ahead by whole seconds from now on, as if it had been set;
// its monotonic clock goes on. No namespace does that (time_namespaces(7)), and a static program has no library to put in
// between: the function of the kernel's that the process reads its clocks with (vdso(7)) is written over, in this process alone. Programs
// that it starts have the machine's clock.
func (f *Fleet) SkewClock(host string, ahead time.Duration) error {
	m, err := f.at(host)
	if err != nil {
		return err
	}
	if m.process == nil {
		return fmt.Errorf("nothing runs on %s", host)
	}
	if err := skew(m.process.cmd.Process.Pid, int32(ahead/time.Second)); err != nil {
		return fmt.Errorf("skew the clock of %s: %w", host, err)
	}
	return nil
}

// skew writes over clock_gettime of a process: it asks the kernel, and adds to the seconds of CLOCK_REALTIME.
func skew(pid int, seconds int32) error {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	var from, to int64
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
				return err
			}
		}
	}
	if from == 0 {
		return errors.New("the process has no vDSO")
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	image := make([]byte, to-from)
	if _, err := memory.ReadAt(image, from); err != nil {
		return err
	}
	at, err := clockGettime(image)
	if err != nil {
		return err
	}
	code := []byte{
		0xb8, 228, 0, 0, 0, // mov eax, 228: clock_gettime (arch/x86/entry/syscalls/syscall_64.tbl)
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi: CLOCK_REALTIME is 0
		0x75, 0x07, // jne to the end
		0x48, 0x81, 0x06, // add qword [rsi], the seconds that follow
	}
	code = append(binary.LittleEndian.AppendUint32(code, uint32(seconds)), 0xc3) // ret
	_, err = memory.WriteAt(code, from+at)
	return err
}

// clockGettime finds the function in the vDSO.
func clockGettime(image []byte) (at int64, err error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			return int64(s.Value), nil
		}
	}
	return 0, errors.New("the vDSO has no clock_gettime")
}
