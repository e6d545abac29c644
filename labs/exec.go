package labs

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type execSpec struct {
	At      *node        `yaml:"-"`
	From    string       `yaml:"from" jsonschema:"required" jsonschema_description:"The node of the client's program."`
	To      string       `yaml:"to" jsonschema:"required" jsonschema_description:"The node of the server's program."`
	Server  *programSpec `yaml:"server" jsonschema_description:"The program in the node to: it starts before the experiment, which waits until it is ready. Default: none."`
	Client  *programSpec `yaml:"client" jsonschema_description:"The program in the node from: it starts with the flow, which ends when it does. Default: none."`
	Metrics textMap      `yaml:"metrics" jsonschema_description:"Numbers found in what the programs printed, by name: CEL over json, client and server; expressions read them as flow.NAME.metrics.METRIC."`
	User    *execUser    `yaml:"user" jsonschema_description:"Who the programs run as: nobody (default), or root, which needs --allow-exec=root."`
	Keep    *size        `yaml:"keep" jsonschema_description:"The most of each output that is kept, up to 64MiB. Default 1MiB."`
}

type programSpec struct {
	At         *node          `yaml:"-"`
	Run        []string       `yaml:"run" jsonschema:"required,minItems=1" jsonschema_description:"The program and its arguments, each an item."`
	Env        textMap        `yaml:"env" jsonschema_description:"Environment variables beside PATH, HOME, USER and LANG."`
	Files      textMap        `yaml:"files" jsonschema_description:"Text files by name in the folder in which the program starts, /tmp; 256KiB in all."`
	Ready      *readinessSpec `yaml:"ready" jsonschema_description:"When the server's program is ready. Default: as soon as it runs."`
	Status     []count        `yaml:"status" jsonschema_description:"Exit statuses with which it has done all it should. Default 0."`
	EndsItself *toggle        `yaml:"ends_itself" jsonschema_description:"The server's program ends by itself after the client's, and is waited for. Default false: it is told to end."`
}

type readinessSpec struct {
	At     *node     `yaml:"-"`
	Port   *count    `yaml:"port" jsonschema_description:"A TCP port on which somebody listens in the node. Either this or line."`
	Line   string    `yaml:"line" jsonschema_description:"A line of its output that matches this regular expression (RE2), anywhere in it. Either this or port."`
	Within *duration `yaml:"within" jsonschema_description:"How long that may take, up to 10min. Default 10s."`
}

// execUser is who programs run as.
type execUser tcplabv1.ExecUser

func (v *execUser) read(d *decoder, n *node) { *v = execUser(d.choice(n, execUserChoices())) }

func (execUser) JSONSchema() *jsonschema.Schema { return choiceSchema(execUserChoices()) }

func execUserChoices() []string { return choices(tcplabv1.ExecUser(0).Descriptor(), "EXEC_USER_") }

// JSONSchemaExtend lets one text, or one status, stand for a list of one.
func (programSpec) JSONSchemaExtend(s *jsonschema.Schema) {
	orOne(s, "run", &jsonschema.Schema{Type: "string"})
	orOne(s, "status", count(0).JSONSchema())
	// An argument may look like a number.
	if run, ok := s.Properties.Get("run"); ok {
		run.AnyOf[0].Items = anyOf("string", "number", "boolean")
	}
}

// Defaults and bounds of exec flows.
const (
	DefaultExecKeep  = 1 << 20          // bytes of each output
	DefaultReadiness = 10 * time.Second // until a program is ready
	maxProgramFiles  = 256 << 10        // bytes of a program's files
)

func (c *converter) exec(s *execSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".exec"
	c.from(s.At, "%s", path)
	c.from(s.At.get("user"), "%s.user", path)
	c.from(s.At.get("keep"), "%s.keep_bytes", path)
	e := &tcplabv1.Exec{
		Server: c.program(s.Server, path+".server"), Client: c.program(s.Client, path+".client"),
		Metrics: c.texts(s.Metrics, path+".metrics"),
	}
	if s.User != nil {
		e.User = tcplabv1.ExecUser(*s.User)
	}
	if s.Keep != nil {
		e.KeepBytes = uint64(*s.Keep)
		if *s.Keep == 0 {
			c.add(s.At.get("keep").at, "", "want to keep at least 1 byte")
		}
	}
	f.Kind = &tcplabv1.Flow_Exec{Exec: e}
}

func (c *converter) program(s *programSpec, path string) *tcplabv1.ExecProgram {
	if s == nil {
		return nil
	}
	c.from(s.At, "%s", path)
	c.from(s.At.get("run"), "%s.argv", path)
	c.from(s.At.get("status"), "%s.statuses", path)
	c.from(s.At.get("files"), "%s.files", path)
	c.from(s.At.get("env"), "%s.env", path)
	c.from(s.At.get("ends_itself"), "%s.ends_itself", path)
	p := &tcplabv1.ExecProgram{
		Argv: s.Run, Env: c.texts(s.Env, path+".env"), Files: c.texts(s.Files, path+".files"),
		EndsItself: s.EndsItself != nil && bool(*s.EndsItself),
	}
	status := s.At.get("status")
	for i, v := range s.Status {
		p.Statuses = append(p.Statuses, c.uint32(status.item(i), &v))
		c.from(status.item(i), "%s.statuses[%d]", path, i)
	}
	p.Ready = c.readiness(s.Ready, path+".ready")
	return p
}

func (c *converter) readiness(s *readinessSpec, path string) *tcplabv1.Readiness {
	if s == nil {
		return nil
	}
	c.from(s.At, "%s", path)
	for _, key := range []string{"port", "line", "within"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	r := &tcplabv1.Readiness{Within: s.Within.proto()}
	switch {
	case s.Port != nil && s.Line != "":
		c.add(s.At.get("line").at, "", "give port or line, not both")
	case s.Port != nil:
		r.By = &tcplabv1.Readiness_Port{Port: c.uint32(s.At.get("port"), s.Port)}
	case s.Line != "":
		r.By = &tcplabv1.Readiness_Line{Line: s.Line}
	default:
		c.add(s.At.at, "give it port: or line:", "by what one knows that the program is ready is missing")
	}
	return r
}

// texts is a mapping of texts as the contract has it.
func (c *converter) texts(s textMap, path string) map[string]string {
	if len(s) == 0 {
		return nil
	}
	all := make(map[string]string, len(s))
	for _, p := range s {
		all[p.key] = p.value
		c.from(p.at, "%s[%q]", path, p.key)
	}
	return all
}

func completeExec(e *tcplabv1.Exec) {
	if e.GetUser() == tcplabv1.ExecUser_EXEC_USER_UNSPECIFIED {
		e.User = tcplabv1.ExecUser_EXEC_USER_NOBODY
	}
	if e.GetKeepBytes() == 0 {
		e.KeepBytes = DefaultExecKeep
	}
}

// portsSysctl lets ports below 1024 be anybody's, so that a server needs no privilege for
// them (Documentation/networking/ip-sysctl.rst).
const portsSysctl = "net.ipv4.ip_unprivileged_port_start"

// exec checks an exec flow that is to end within the time.
func (v *validation) exec(field string, f *tcplabv1.Flow, within time.Duration) {
	e := f.GetExec()
	if e.GetServer() == nil && e.GetClient() == nil {
		v.add(field, "give it server: or client:, or both", "the flow runs no program")
	}
	if f.GetSocket() != nil {
		v.add(strings.TrimSuffix(field, ".exec")+".socket", "leave it out", "the programs set the options of their own sockets")
	}
	if f.GetSource() != "" {
		v.add(strings.TrimSuffix(field, ".exec")+".source", "leave it out", "the programs choose the addresses of their own sockets")
	}
	v.program(field+".client", e.GetClient())
	v.program(field+".server", e.GetServer())
	if e.GetClient().GetReady() != nil {
		v.add(field+".client.ready", "", "only the server's program is waited for")
	}
	if e.GetClient().GetEndsItself() {
		v.add(field+".client.ends_itself", "leave it out", "the flow ends when the client's program does, and so that always ends by itself")
	}
	if r := e.GetServer().GetReady(); r != nil && readyWithin(r) >= within {
		v.add(field+".server.ready", "raise the experiment's timeout", "the program may take %v to be ready, and the experiment ends after %v", readyWithin(r), within)
	}
	for _, name := range slices.Sorted(maps.Keys(e.GetMetrics())) {
		at := fmt.Sprintf("%s.metrics[%q]", field, name)
		if !flowName.MatchString(name) {
			v.add(at, flowHint, "%q cannot be a metric's name", name)
		}
		_, err := expect.CompileMetric(e.GetMetrics()[name])
		var wrong *expect.Error
		switch {
		case err == nil:
		case errors.As(err, &wrong):
			v.found = append(v.found, Violation{Field: at, Message: wrong.Message, Offset: wrong.Offset})
		default:
			v.add(at, "", "%s", err)
		}
	}
}

func readyWithin(r *tcplabv1.Readiness) time.Duration {
	if r.GetWithin() == nil {
		return DefaultReadiness
	}
	return r.GetWithin().AsDuration()
}

var programFile = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

func (v *validation) program(field string, p *tcplabv1.ExecProgram) {
	if p == nil {
		return
	}
	argv := p.GetArgv()
	switch {
	case len(argv) == 0 || argv[0] == "":
		v.add(field+".argv", "such as [iperf3, -s]", "which program is missing")
	case len(argv) == 1 && strings.ContainsAny(argv[0], " \t\n"):
		v.add(field+".argv", "write "+listed(argv[0])+"; for a shell [sh, -c, …]", "%q is one word: no shell takes it apart", argv[0])
	}
	for i, arg := range argv {
		if strings.Contains(arg, "\x00") {
			v.add(fmt.Sprintf("%s.argv[%d]", field, i), "", "an argument holds a NUL")
		}
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(p.GetFiles())) {
		if !programFile.MatchString(name) {
			v.add(fmt.Sprintf("%s.files[%q]", field, name), "a plain name of at most 100 of A-Z, a-z, 0-9, dot, hyphen and underscore", "%q cannot be a file's name", name)
		}
		size += len(p.GetFiles()[name])
	}
	if size > maxProgramFiles {
		v.add(field+".files", "let the program make what is large", "the files have %d bytes, more than %d", size, maxProgramFiles)
	}
	for _, name := range slices.Sorted(maps.Keys(p.GetEnv())) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(p.GetEnv()[name], "\x00") {
			v.add(fmt.Sprintf("%s.env[%q]", field, name), "", "%q cannot be an environment variable", name)
		}
	}
	if line := p.GetReady().GetLine(); line != "" {
		if _, err := regexp.Compile(line); err != nil {
			v.add(field+".ready.line", "RE2's syntax", "%q is no regular expression: %s", line, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
	}
	if r := p.GetReady(); r != nil && r.GetBy() == nil {
		v.add(field+".ready", "give it port: or line:", "by what one knows that the program is ready is missing")
	}
}

// listed writes a command line as the list that it should be.
func listed(line string) string {
	return "[" + strings.Join(strings.Fields(line), ", ") + "]"
}

// ExecNeeds is what the lab's exec flows need permission for: the most that any of
// them does.
func ExecNeeds(lab *tcplabv1.Lab) tcplabv1.ExecPermission {
	most := tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED
	for _, e := range lab.GetExperiments() {
		for _, f := range e.GetFlows() {
			most = max(most, flowNeeds(f))
		}
	}
	return most
}

func flowNeeds(f *tcplabv1.Flow) tcplabv1.ExecPermission {
	switch {
	case f.GetExec() == nil:
		return tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED
	case f.GetExec().GetUser() == tcplabv1.ExecUser_EXEC_USER_ROOT:
		return tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT
	}
	return tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY
}

// Permit refuses a lab whose exec flows would start what is not permitted. The error is
// [Violations], one for each such flow.
func Permit(lab *tcplabv1.Lab, permission tcplabv1.ExecPermission) error {
	var refused Violations
	for i, e := range lab.GetExperiments() {
		for j, f := range e.GetFlows() {
			if needs := flowNeeds(f); needs > permission {
				refused = append(refused, refusal(fmt.Sprintf("experiments[%d].flows[%d]", i, j), f, needs))
			}
		}
	}
	if refused == nil {
		return nil
	}
	return refused
}

func refusal(field string, f *tcplabv1.Flow, needs tcplabv1.ExecPermission) Violation {
	var programs []string
	for _, p := range []*tcplabv1.ExecProgram{f.GetExec().GetServer(), f.GetExec().GetClient()} {
		if p != nil {
			programs = append(programs, path.Base(p.GetArgv()[0]))
		}
	}
	who, flag := "an unprivileged user", "--allow-exec"
	if needs == tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT {
		who, flag = "root", "--allow-exec=root"
	}
	return Violation{
		Field:   field,
		Message: fmt.Sprintf("the flow %s runs %s on this host, as %s", f.GetName(), strings.Join(programs, " and "), who),
		Hint:    "read the lab, and where you trust it permit that with " + flag,
	}
}

// Permit refuses the file where its exec flows would start what is not permitted; but labs that
// tcplab brings along may run programs as nobody. The error is [Problems], with the places of
// the flows at the first point that has any.
func (f *File) Permit(overrides []Override, permission tcplabv1.ExecPermission) error {
	if broughtAlong(f.source) {
		permission = max(permission, tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY)
	}
	if !f.hasExec() {
		return nil
	}
	r := &report{}
	params := f.override(overrides, r)
	f.boundSweep(params, r)
	if err := r.err(); err != nil {
		return err
	}
	e := expansion{file: f, permission: &permission, checked: make(map[string]bool), files: newAttachments(f.source.Attachments)}
	for choice := make([]int, len(params)); ; {
		if _, err := e.at(params, choice); err != nil {
			return err
		}
		if !next(params, choice) {
			return nil
		}
	}
}

// hasExec reports whether the file has exec flows: no parameter decides on that.
func (f *File) hasExec() bool {
	return slices.ContainsFunc(f.spec.Experiments, func(e experimentSpec) bool {
		return slices.ContainsFunc(e.Flows, func(f flowSpec) bool { return f.Exec != nil })
	})
}

// broughtAlong reports whether a source is one of tcplab's own labs, byte for byte.
func broughtAlong(src Source) bool {
	for _, name := range names() {
		own, err := Load(name)
		if err == nil && string(own.Content) == string(src.Content) && maps.EqualFunc(own.Attachments, src.Attachments, slices.Equal[[]byte]) {
			return true
		}
	}
	return false
}
