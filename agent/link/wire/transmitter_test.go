package wire

import (
	"math/big"
	"testing"
)

func TestTransmitterDoesNotDrift(t *testing.T) {
	for _, rate := range []uint64{1, 3, 1000, 10e6, 999_999_937, 40e9, 7e12} {
		clock := transmitter{rate: rate}
		clock.wait(17)
		bits := new(big.Int)
		for i := range 100_000 {
			size := 60 + i*7919%1455
			clock.send(size)
			bits.Add(bits, big.NewInt(int64(size)*8))
		}
		// 17 + ceil(bits * 10^9 / rate)
		want := bits.Mul(bits, big.NewInt(1e9))
		want.Add(want, new(big.Int).SetUint64(rate-1))
		want.Div(want, new(big.Int).SetUint64(rate))
		want.Add(want, big.NewInt(17))
		if want.IsInt64() && clock.end() != want.Int64() {
			t.Errorf("at %d bit/s the frames end at %d ns, want %v", rate, clock.end(), want)
		}
	}
}

func TestTransmitterChangesRate(t *testing.T) {
	tests := []struct {
		name            string
		before, after   uint64
		size            int
		change, wantEnd int64
	}{
		{"half the rate for the second half", 8e9, 4e9, 1000, 500, 1500},
		{"double the rate for the second half", 8e9, 16e9, 1000, 500, 750},
		{"no rate ends it at once", 8e9, 0, 1000, 500, 500},
		{"after the end nothing changes", 8e9, 1, 1000, 2000, 1000},
		{"the fraction is kept", 3e9, 3e9, 1, 1, 3}, // 2 2/3 ns
		{"slow to fast", 1, 8e9, 1000, 0, 1000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clock := transmitter{rate: test.before}
			clock.send(test.size)
			clock.setRate(test.after, 0, test.change)
			if clock.end() != test.wantEnd {
				t.Errorf("ends at %d, want %d", clock.end(), test.wantEnd)
			}
		})
	}
}
