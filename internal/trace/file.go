package trace

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Info is what a file says beside its packets.
type Info struct {
	Interfaces []Interface
	Truncated  bool // it ends in the middle of a block
}

// Interface is one of a file's.
type Interface struct {
	Name        string
	Description string
	Snap        int // bytes kept of each packet; 0: all
}

// maxInterfaces bounds what a file may name.
const maxInterfaces = 1 << 16

// Each reads a pcapng file and gives fn its packets in their order, until fn returns an error, which it
// returns. Packets of links that are not Ethernet are left out. The packet's data is fn's until it
// returns. A file that ends in the middle of a block gives all that is before.
func Each(r io.Reader, fn func(Packet) error) (Info, error) {
	var info Info
	reader, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return info, fmt.Errorf("read a capture: %w", err)
	}
	for {
		data, meta, options, err := reader.ZeroCopyReadPacketDataWithOptions()
		for i := len(info.Interfaces); i < min(reader.NInterfaces(), maxInterfaces); i++ {
			known, ifaceErr := reader.Interface(i)
			if ifaceErr != nil {
				return info, fmt.Errorf("read a capture: %w", ifaceErr)
			}
			info.Interfaces = append(info.Interfaces, Interface{Name: known.Name, Description: known.Description, Snap: int(known.SnapLength)})
		}
		switch {
		case errors.Is(err, io.EOF):
			return info, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			info.Truncated = true
			return info, nil
		case err != nil:
			return info, fmt.Errorf("read a capture: %w", err)
		}
		if link, ok := ancillary(meta); ok && link != layers.LinkTypeEthernet || meta.CaptureLength > meta.Length {
			continue
		}
		p := Packet{Time: meta.Timestamp, Interface: meta.InterfaceIndex, Length: meta.Length, Data: data}
		if options.Flags != nil {
			switch options.Flags.Direction {
			case pcapgo.NgEpbFlagDirectionInbound:
				p.Way = In
			case pcapgo.NgEpbFlagDirectionOutbound:
				p.Way = Out
			}
		}
		if err := fn(p); err != nil {
			return info, err
		}
	}
}

// ancillary is the link type that the reader gives with a packet.
func ancillary(meta gopacket.CaptureInfo) (layers.LinkType, bool) {
	if len(meta.AncillaryData) == 0 {
		return 0, false
	}
	link, ok := meta.AncillaryData[0].(layers.LinkType)
	return link, ok
}

// Writer writes pcapng files: nanoseconds, and the way of each packet. Not for concurrent use.
type Writer struct {
	out  io.Writer
	file *pcapgo.NgWriter // nil before the first interface
}

// NewWriter starts a file on w.
func NewWriter(w io.Writer) *Writer { return &Writer{out: w} }

// PacketBytes is how many bytes of a file a packet takes of which n bytes are kept: the
// block's header, trailer, padding, and the option with its way.
func PacketBytes(n int) int { return 28 + (n+3)&^3 + 12 + 4 }

// Add enters an interface and returns its index. Packets come after their interface.
func (w *Writer) Add(i Interface, filter string) (int, error) {
	described := pcapgo.NgInterface{
		Name: i.Name, Description: i.Description, Filter: filter, OS: "Linux",
		LinkType: layers.LinkTypeEthernet, SnapLength: uint32(i.Snap), TimestampResolution: 9,
	}
	var index int
	var err error
	if w.file == nil {
		w.file, err = pcapgo.NewNgWriterInterface(w.out, described, pcapgo.NgWriterOptions{
			SectionInfo: pcapgo.NgSectionInfo{Application: "tcplab", OS: "Linux"},
		})
	} else {
		index, err = w.file.AddInterface(described)
	}
	if err != nil {
		return 0, fmt.Errorf("write a capture: %w", err)
	}
	return index, nil
}

// Packet writes a packet.
func (w *Writer) Packet(p Packet) error {
	flags := pcapgo.NgEpbFlags{}
	switch p.Way {
	case In:
		flags.Direction = pcapgo.NgEpbFlagDirectionInbound
	case Out:
		flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	err := w.file.WritePacketWithOptions(
		gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length, InterfaceIndex: p.Interface},
		p.Data, pcapgo.NgPacketOptions{Flags: &flags})
	if err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	return nil
}

// Count enters how many packets an interface's capture had seen by then, and how many of them it lost.
func (w *Writer) Count(iface int, by time.Time, received, dropped uint64) error {
	err := w.file.WriteInterfaceStats(iface, pcapgo.NgInterfaceStatistics{LastUpdate: by, PacketsReceived: received, PacketsDropped: dropped})
	if err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	return nil
}

// Flush hands on all that was written.
func (w *Writer) Flush() error {
	if w.file == nil {
		return nil
	}
	if err := w.file.Flush(); err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	return nil
}
