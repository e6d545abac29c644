package run

import (
	"crypto/sha256"
	"encoding/binary"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// seedLinks gives each direction without a seed one of its own, which follows
// from the run's seed and from what the direction is: the same run again loses
// the same packets, and no two directions, repetitions or points share their
// luck.
func seedLinks(lab *tcplabv1.Lab, runSeed uint64, point, repetition uint32) {
	for _, link := range lab.GetLinks() {
		for way, direction := range map[tcplabv1.LinkDirection]*tcplabv1.Direction{
			tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD:  link.GetForward(),
			tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD: link.GetBackward(),
		} {
			if direction != nil && direction.GetSeed() == 0 {
				direction.Seed = directionSeed(runSeed, link.GetName(), way, point, repetition)
			}
		}
	}
}

// directionSeed is the first 8 bytes, big-endian, of the SHA-256 of: the run's
// seed (8 bytes), the number of the point from 0 (4), the repetition from 1
// (4), the direction's number in LinkDirection (4), all big-endian, and the
// link's name. 0, which means no seed, becomes 1.
func directionSeed(runSeed uint64, link string, way tcplabv1.LinkDirection, point, repetition uint32) uint64 {
	b := binary.BigEndian.AppendUint64(nil, runSeed)
	b = binary.BigEndian.AppendUint32(b, point)
	b = binary.BigEndian.AppendUint32(b, repetition)
	b = binary.BigEndian.AppendUint32(b, uint32(way))
	sum := sha256.Sum256(append(b, link...))
	return max(1, binary.BigEndian.Uint64(sum[:8]))
}
