package kernel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a build. The zero value builds from the newest packaged source, with all processors.
type Options struct {
	// Source is a package (linux-source-6.12), an archive or a folder with a kernel's source, which
	// is copied and stays as it is. Empty: the newest package that this machine has or could
	// install.
	Source string
	// Install has apt install what is missing; it takes root.
	Install bool
	// Force builds also where this kernel is built already.
	Force bool
	// Jobs is how many compilers run at once. Default: one a processor.
	Jobs int
	// Progress is told how far it is, from this goroutine; nil: nobody.
	Progress func(Progress)
}

// Progress is how far a build is.
type Progress struct {
	Stage string // "unpacking", "configuring", "compiling", "linking"
	Done  int    // files compiled
	About int    // files in all, about; 0 outside of compiling
}

// BuildError says that a step failed.
type BuildError struct {
	Step string // what was done
	Err  error
	Log  string // the file with all that was said; empty: none
	Last string // its last lines
}

func (e *BuildError) Error() string {
	text := fmt.Sprintf("build the guest kernel: %s: %v", e.Step, e.Err)
	if e.Last != "" {
		text += "\n" + e.Last
	}
	if e.Log != "" {
		text += "\nall of it is in " + e.Log
	}
	return text
}

// Unwrap is what went wrong.
func (e *BuildError) Unwrap() error { return e.Err }

// room is what a build takes on disk while it lasts, in bytes: 1.5 GB here.
const room = 2 << 30

// aboutFiles is how many files are compiled, of 6.12 and this configuration.
const aboutFiles = 860

// Build builds a kernel into a folder of its own in dir, which is made where it is missing, or finds
// it built; built says which. One build at a time goes on in dir: another waits. The error is a
// [MissingError] where this machine lacks what building takes, and a [BuildError] where a step failed.
// Where it ends early nothing is left but the log of what failed.
func Build(ctx context.Context, dir string, o Options) (k Kernel, built bool, err error) {
	if runtime.GOARCH != "amd64" {
		return Kernel{}, false, fmt.Errorf("user-mode Linux runs on x86-64, and this is %s", runtime.GOARCH)
	}
	// What it starts gets its signal at the death of this thread, which is kept meanwhile.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, false, fmt.Errorf("make the folder of guest kernels: %w", err)
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return Kernel{}, false, err
	}
	defer unlock()
	b := &build{Options: o, dir: dir, work: filepath.Join(dir, workName)}
	if err := os.RemoveAll(b.work); err != nil { // what a killed build left
		return Kernel{}, false, fmt.Errorf("sweep what an earlier build left: %w", err)
	}
	if err := os.Mkdir(b.work, 0o755); err != nil {
		return Kernel{}, false, fmt.Errorf("make room for the build: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if b.log, err = os.Create(filepath.Join(dir, logName)); err != nil {
		return Kernel{}, false, fmt.Errorf("open the build's log: %w", err)
	}
	defer b.log.Close()
	k, built, err = b.all(ctx)
	if err == nil || errors.As(err, new(*MissingError)) {
		err = errors.Join(err, os.Remove(b.log.Name()))
	}
	return k, built, err
}

// lock keeps other builds out of the folder until unlock.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the folder of guest kernels: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock the folder of guest kernels: %w", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another build of a guest kernel: %w", ctx.Err())
		}
	}
}

// build is one under way.
type build struct {
	Options
	dir, work string
	log       *os.File
}

func (b *build) all(ctx context.Context) (Kernel, bool, error) {
	from, err := findSource(ctx, b.Source)
	if err != nil {
		return Kernel{}, false, err
	}
	if lacks := missing(from); len(lacks) > 0 {
		lack := &MissingError{Requirements: lacks}
		if !b.Install {
			return Kernel{}, false, lack
		}
		b.Progress(Progress{Stage: "installing packages"})
		if err := install(ctx, lack, b.log); err != nil {
			return Kernel{}, false, b.failed("install packages", err)
		}
		if from, err = findSource(ctx, b.Source); err != nil {
			return Kernel{}, false, err
		}
		if lacks := missing(from); len(lacks) > 0 {
			return Kernel{}, false, b.failed("install packages", &MissingError{Requirements: lacks})
		}
	}
	return b.from(ctx, from)
}

// from builds from a source, with all that it takes there.
func (b *build) from(ctx context.Context, from source) (Kernel, bool, error) {
	if from.version != "" && !b.Force {
		if k, err := read(filepath.Join(b.dir, folderName(from.version))); err == nil {
			return k, false, nil
		}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(b.work, &disk); err == nil && disk.Bavail*uint64(disk.Bsize) < room {
		return Kernel{}, false, fmt.Errorf("building a guest kernel takes %d MiB in %s, and %d MiB are free", room>>20, b.dir, disk.Bavail*uint64(disk.Bsize)>>20)
	}
	begin := time.Now()
	tree := filepath.Join(b.work, "source")
	for _, step := range []struct {
		name string
		do   func(context.Context, string) error
	}{
		{"unpack " + from.name, func(ctx context.Context, tree string) error { return b.unpack(ctx, from, tree) }},
		{"patch", b.patch},
		{"configure", b.configure},
		{"compile", b.compile},
	} {
		if err := step.do(ctx, tree); err != nil {
			return Kernel{}, false, b.failed(step.name, err)
		}
	}
	release, err := b.say(ctx, tree, "make", "-s", "ARCH=um", "kernelrelease")
	if err != nil {
		return Kernel{}, false, b.failed("read the release", err)
	}
	version := from.version
	if version == "" {
		version = strings.TrimSuffix(release, "-tcplab")
	}
	k := Kernel{
		Release: release, Source: strings.TrimSpace(from.name + " " + from.version), ConfigHash: Hash(), HZ: HZ,
		Built: time.Now().UTC().Truncate(time.Second), Took: time.Since(begin).Round(time.Second).String(),
	}
	if err := b.keep(ctx, tree, folderName(version), k); err != nil {
		return Kernel{}, false, b.failed("keep it", err)
	}
	k, err = read(filepath.Join(b.dir, folderName(version)))
	return k, true, err
}

// folderName is the folder of a kernel of that version and this configuration.
func folderName(version string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t", r) {
			return '_'
		}
		return r
	}, version) + "-" + Hash()
}

// unpack brings the source to the folder, without the parts that user-mode Linux never reads.
func (b *build) unpack(ctx context.Context, from source, tree string) error {
	b.Progress(Progress{Stage: "unpacking " + from.name})
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if from.tree != "" {
		if err := b.run(ctx, b.work, nil, "cp", "-a", from.tree+"/.", tree); err != nil {
			return err
		}
		return b.run(ctx, tree, nil, "make", "ARCH=um", "mrproper")
	}
	// Other architectures have Kconfig files that are read; their device trees are not.
	return b.run(ctx, b.work, nil, "tar", "-x", "-f", from.archive, "-C", tree, "--strip-components=1",
		"--exclude=*/drivers/gpu/drm/amd/include/*", "--exclude=*/tools/testing/*", "--exclude=*/arch/*/boot/dts/*")
}

func (b *build) patch(_ context.Context, tree string) error {
	for _, p := range patches() {
		if err := p.apply(tree); err != nil {
			return err
		}
	}
	return nil
}

// configure makes the configuration, and refuses one that is not as it was asked.
func (b *build) configure(ctx context.Context, tree string) error {
	b.Progress(Progress{Stage: "configuring"})
	fragment := filepath.Join(b.work, "guest.config")
	if err := os.WriteFile(fragment, []byte(configuration), 0o644); err != nil {
		return err
	}
	if err := b.run(ctx, tree, nil, "make", "ARCH=um", "KCONFIG_ALLCONFIG="+fragment, "allnoconfig"); err != nil {
		return err
	}
	made, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return err
	}
	if lacks := refused(string(made)); len(lacks) > 0 {
		return fmt.Errorf("this source does not take %s", strings.Join(lacks, ", "))
	}
	return nil
}

// compiled is what make says of a file that it compiles.
var compiled = regexp.MustCompile(`^  (CC|AS|LD|AR) +(\S+)`)

func (b *build) compile(ctx context.Context, tree string) error {
	jobs := b.Jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	progress := Progress{Stage: "compiling", About: aboutFiles}
	b.Progress(progress)
	return b.run(ctx, tree, func(line string) {
		if step := compiled.FindStringSubmatch(line); step != nil {
			switch {
			case step[1] == "LD" && step[2] == "vmlinux":
				b.Progress(Progress{Stage: "linking"})
			case step[1] == "CC" || step[1] == "AS":
				progress.Done++
				progress.About = max(progress.About, progress.Done)
				b.Progress(progress)
			}
		}
	}, "make", "ARCH=um", fmt.Sprintf("-j%d", jobs), "linux")
}

// keep moves the kernel to where it is looked for, whole.
func (b *build) keep(ctx context.Context, tree, name string, k Kernel) error {
	whole := filepath.Join(b.work, "whole")
	if err := os.Mkdir(whole, 0o755); err != nil {
		return err
	}
	if err := b.run(ctx, tree, nil, "strip", "-o", filepath.Join(whole, programName), "linux"); err != nil {
		return err
	}
	made, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err == nil {
		err = os.WriteFile(filepath.Join(whole, configName), made, 0o644)
	}
	if err != nil {
		return err
	}
	about, err := json.MarshalIndent(k, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(whole, aboutName), append(about, '\n'), 0o644)
	}
	if err != nil {
		return err
	}
	for _, name := range []string{programName, configName, aboutName} {
		if err := syncFile(filepath.Join(whole, name)); err != nil {
			return err
		}
	}
	place := filepath.Join(b.dir, name)
	if err := os.RemoveAll(place); err != nil {
		return err
	}
	return os.Rename(whole, place)
}

// syncFile makes a file's content durable.
func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// run runs a program, whose words go to the log, and by line to tell, unless that is nil.
func (b *build) run(ctx context.Context, folder string, tell func(string), program string, args ...string) error {
	cmd := b.command(ctx, folder, program, args...)
	cmd.Stderr = b.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(io.TeeReader(out, b.log))
	for lines.Scan() {
		if tell != nil {
			tell(lines.Text())
		}
	}
	// What is longer than any line of make's is still to be logged.
	if _, err := io.Copy(b.log, out); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	return cmd.Wait()
}

// say runs a program and returns what it says.
func (b *build) say(ctx context.Context, folder, program string, args ...string) (string, error) {
	cmd := b.command(ctx, folder, program, args...)
	cmd.Stderr = b.log
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// command is a program that is killed with all that it started, at the end of ctx and with this
// process.
func (b *build) command(ctx context.Context, folder, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "LC_ALL=C", "KBUILD_BUILD_USER=tcplab", "KBUILD_BUILD_HOST=tcplab", "KBUILD_BUILD_TIMESTAMP=@0")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// failed says what went wrong, with the end of the log, which stays.
func (b *build) failed(step string, err error) error {
	fault := &BuildError{Step: step, Err: err, Log: b.log.Name()}
	content, readErr := os.ReadFile(fault.Log)
	if readErr != nil {
		return fault
	}
	const lines = 12
	last := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	fault.Last = string(bytes.Join(last[max(0, len(last)-lines):], []byte("\n")))
	return fault
}
