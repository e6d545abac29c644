package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// SeedVariable is the environment variable of a guest kernel's process with which its random numbers
// begin, a whole number below 2^64. Without it they are the host's.
const SeedVariable = "TCPLAB_SEED"

// patch is a change of the source: a text that stands in the file once becomes another.
type patch struct {
	file, old, new string
}

// patches are what user-mode Linux has no setting for.
func patches() []patch {
	return []patch{
		{
			// HZ has no prompt there.
			file: "arch/um/Kconfig",
			old:  "config HZ\n\tint\n\tdefault 100\n",
			new:  fmt.Sprintf("config HZ\n\tint\n\tdefault %d\n", HZ),
		},
		{
			// Programs in the guest die with the kernel, in whatever way that ends.
			file: "arch/um/os-Linux/skas/process.c",
			old:  "\t\t   (void *) PTRACE_O_TRACESYSGOOD) < 0) {\n",
			new:  "\t\t   (void *) (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) < 0) {\n",
		},
		{
			// The one source of randomness in virtual time that is not the kernel's own clock: initial
			// sequence numbers, ports, hash keys and a program's own random numbers all follow
			// from it. splitmix64 is plenty: the kernel's generator hashes it.
			file: "arch/um/os-Linux/util.c",
			old:  "\treturn getrandom(buf, len, flags);\n",
			new: `	static unsigned long long state;
	static int seeded = -1;
	unsigned char *to = buf;
	size_t i;

	if (seeded < 0) {
		const char *seed = getenv("` + SeedVariable + `");

		seeded = seed != NULL;
		if (seeded)
			state = strtoull(seed, NULL, 10);
	}
	if (!seeded)
		return getrandom(buf, len, flags);
	for (i = 0; i < len; i++) {
		unsigned long long z = (state += 0x9e3779b97f4a7c15ULL);

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
		to[i] = z ^ (z >> 31);
	}
	return len;
`,
		},
	}
}

// apply changes the source in the folder.
func (p patch) apply(folder string) error {
	path := filepath.Join(folder, p.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("patch the kernel's source: %w", err)
	}
	changed, err := p.change(string(content))
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("patch the kernel's source: %w", err)
	}
	return nil
}

func (p patch) change(content string) (string, error) {
	if n := strings.Count(content, p.old); n != 1 {
		return "", fmt.Errorf("patch the kernel's source: %s has %q %d times, not once: this version is not known to tcplab; 6.1 and 6.12 are", p.file, strings.TrimSpace(p.old), n)
	}
	return strings.Replace(content, p.old, p.new, 1), nil
}
