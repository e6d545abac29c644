package labs

import "fmt"

// didYouMean is a hint that names the candidate nearest to got, or nothing
// where none is near: more than a third of the letters would have to change.
func didYouMean(got string, candidates []string) string {
	best, bestDistance := "", max(1, len(got)/3)+1
	for _, c := range candidates {
		if d := editDistance(got, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// editDistance counts the insertions, deletions, substitutions and exchanges
// of neighbours that turn a into b (Damerau's distance, each place once). Texts
// over 64 bytes are taken as far apart.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, last, row [65]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
