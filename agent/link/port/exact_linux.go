package port

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layouts of include/uapi/linux/ethtool.h.
const (
	stringLen     = 32 // ETH_GSTRING_LEN
	stringsHeader = 12 // struct ethtool_gstrings: cmd, string_set, len
	setFeatures   = 4  // ETH_SS_FEATURES
)

// exact turns off what makes one buffer stand for several frames, on an interface of this
// thread's namespace: segmentation offloads when sending, receive offloads when
// receiving. Checksum offload stays: it changes no frame.
func exact(name string) error {
	if err := without(name, merges); err != nil {
		return fmt.Errorf("turn segmentation offloads off: %w", err)
	}
	return nil
}

// Linear has an interface send each frame in one piece and with its checksum, so that what
// damages a frame damages it anywhere, and the receiver finds that out.
func Linear(end End) error {
	err := end.NS.Do(func() error {
		return without(end.Name, func(feature string) bool {
			return strings.HasPrefix(feature, "tx-scatter-gather") || strings.HasPrefix(feature, "tx-checksum-")
		})
	})
	if err != nil {
		return fmt.Errorf("have %s in %s send frames in one piece: %w", end.Name, end.NS.Name(), err)
	}
	return nil
}

// without turns device features off, by the kernel's names for them
// (net/ethtool/common.c), on an interface of this thread's namespace.
func without(name string, off func(feature string) bool) error {
	sock, err := control()
	if err != nil {
		return err
	}
	defer unix.Close(sock)

	names, err := featureNames(sock, name)
	if err != nil {
		return err
	}
	// struct ethtool_sfeatures: cmd, size, then per 32 features {valid, requested}.
	blocks := (len(names) + 31) / 32
	request := make([]byte, 8+8*blocks)
	binary.NativeEndian.PutUint32(request, unix.ETHTOOL_SFEATURES)
	binary.NativeEndian.PutUint32(request[4:], uint32(blocks))
	for i, feature := range names {
		if !off(feature) {
			continue
		}
		valid := request[8+8*(i/32):]
		binary.NativeEndian.PutUint32(valid, binary.NativeEndian.Uint32(valid)|1<<(i%32))
	}
	return ethtool(sock, name, request)
}

// merges reports whether a device feature, by the kernel's name for it
// (net/ethtool/common.c), makes buffers of several frames.
func merges(feature string) bool {
	return strings.Contains(feature, "segmentation") ||
		strings.HasPrefix(feature, "tx-gso") ||
		strings.HasPrefix(feature, "rx-gro") ||
		feature == "rx-lro" || feature == "rx-udp-gro-forwarding"
}

// featureNames are the names of the device features that this kernel knows, by bit number.
func featureNames(sock int, name string) ([]string, error) {
	// struct ethtool_sset_info: cmd, reserved, mask of sets, one u32 for each set.
	info := make([]byte, 20)
	binary.NativeEndian.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint64(info[8:], 1<<setFeatures)
	if err := ethtool(sock, name, info); err != nil {
		return nil, fmt.Errorf("count the device's features: %w", err)
	}
	count := int(binary.NativeEndian.Uint32(info[16:]))

	table := make([]byte, stringsHeader+count*stringLen)
	binary.NativeEndian.PutUint32(table, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(table[4:], setFeatures)
	binary.NativeEndian.PutUint32(table[8:], uint32(count))
	if err := ethtool(sock, name, table); err != nil {
		return nil, fmt.Errorf("name the device's features: %w", err)
	}
	names := make([]string, count)
	for i := range names {
		entry := table[stringsHeader+i*stringLen:][:stringLen]
		end := bytes.IndexByte(entry, 0)
		if end < 0 {
			end = stringLen
		}
		names[i] = string(entry[:end])
	}
	return names, nil
}

// control opens the socket that interface requests go through.
func control() (int, error) {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a control socket: %w", err)
	}
	return sock, nil
}

// deviceRequest is struct ifreq (include/uapi/linux/if.h) with a pointer in its union.
type deviceRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ethtool sends one request of ethtool's binary interface and leaves the answer in its place.
func ethtool(sock int, name string, request []byte) error {
	ifr := &deviceRequest{data: unsafe.Pointer(&request[0])}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(ifr))); errno != 0 {
		return errno
	}
	return nil
}
