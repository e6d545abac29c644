package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// labSource reads a lab file, or finds a lab that is built in.
func (a *app) labSource(arg string) (labs.Source, error) {
	if arg == "-" {
		content, err := io.ReadAll(io.LimitReader(a.In, labs.MaxFileSize+1))
		if err != nil {
			return labs.Source{}, fmt.Errorf("read standard input: %w", err)
		}
		return labs.Source{Name: "standard input", Content: content}, nil
	}
	if !strings.ContainsRune(arg, filepath.Separator) && !strings.Contains(arg, ".") {
		source, err := labs.Load(arg)
		if err != nil {
			return labs.Source{}, usageError("%v; `tcplab lab list` lists them, and a file is named with its folder or ending (./%s.yaml)", err, arg)
		}
		return source, nil
	}
	file, err := os.Open(arg)
	if err != nil {
		return labs.Source{}, usageError("read the lab file: %v", err)
	}
	defer file.Close()
	// One byte more than is allowed, so that the parser can refuse it by its size.
	content, err := io.ReadAll(io.LimitReader(file, labs.MaxFileSize+1))
	if err != nil {
		return labs.Source{}, usageError("read the lab file: %v", err)
	}
	return labs.Source{Name: arg, Content: content}, nil
}

// labFile parses a lab, with the files that it names at any of its parameter
// points: those that stand beside its file.
func (a *app) labFile(arg string, overrides []labs.Override) (*labs.File, error) {
	source, err := a.labSource(arg)
	if err != nil {
		return nil, err
	}
	file, err := labs.Parse(source)
	if err != nil {
		return nil, err
	}
	if source.Attachments != nil {
		return file, nil // built in, as are the files
	}
	named, err := file.Attachments(overrides)
	if err != nil || len(named) == 0 {
		return file, err
	}
	attachments, err := readAttachments(source.Name, filepath.Dir(arg), named)
	if err != nil {
		return nil, err
	}
	return file.Attach(attachments), nil
}

// readAttachments reads files of one folder. What is not there is left out, for
// the lab to say where it is missed. The error is [labs.Problems].
func readAttachments(lab, dir string, named []labs.Attachment) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, usageError("open the lab's folder: %v", err)
	}
	defer root.Close()
	attachments := make(map[string][]byte)
	var problems labs.Problems
	total := 0
	for _, a := range named {
		content, err := readAttachment(root, a.Name)
		total += len(content)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && total > labs.MaxAttachmentsSize:
			err = fmt.Errorf("with the files before it the lab has more than %d MiB of files", labs.MaxAttachmentsSize>>20)
		}
		if err != nil {
			problems = append(problems, labs.Problem{File: lab, Line: a.Line, Column: a.Column, Message: fmt.Sprintf("the file %q: %v", a.Name, err)})
			continue
		}
		attachments[a.Name] = content
	}
	if problems != nil {
		return nil, problems
	}
	return attachments, nil
}

// readAttachment reads a regular file, and one byte more than is allowed, so
// that the lab can refuse it by its size.
func readAttachment(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, bare(err)
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, labs.MaxAttachmentSize+1))
}

// bare is an error without the operation and the path, which the message gives.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// labSourceMessage is a lab as it travels.
func labSourceMessage(source labs.Source) *tcplabv1.LabSource {
	sent := &tcplabv1.LabSource{Content: source.Content, FileName: source.Name}
	for _, name := range slices.Sorted(maps.Keys(source.Attachments)) {
		sent.Attachments = append(sent.Attachments, &tcplabv1.Attachment{Name: name, Content: source.Attachments[name]})
	}
	return sent
}
