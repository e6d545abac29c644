package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// freshClone clones what is committed into an empty folder and runs there the
// commands of the README's first block of code.
func freshClone(ctx context.Context, b *Bench) (string, error) {
	clone := filepath.Join(b.Dir, "clone")
	result, err := b.Exec(ctx, "git", "clone", "--quiet", b.Root, clone)
	if err != nil {
		return "", err
	}
	if result.Status != 0 {
		return "", fmt.Errorf("git clone: %s", lastLines(result.Stderr))
	}
	commands, err := readmeCommands(filepath.Join(clone, "README.md"))
	if err != nil {
		return "", err
	}
	var figures []string
	for _, command := range commands {
		result, err := b.Exec(ctx, "/bin/sh", "-c", "cd "+clone+" && "+command)
		if err != nil {
			return strings.Join(figures, ", "), err
		}
		figures = append(figures, fmt.Sprintf("%s: %.0f s", command, result.Took.Seconds()))
		if result.Status != 0 {
			return strings.Join(figures, ", "), fmt.Errorf("%s: exit status %d: %s / %s", command, result.Status, lastLines(result.Stdout), lastLines(result.Stderr))
		}
	}
	return strings.Join(figures, ", "), nil
}

// readmeCommands are the two lines of the README's first indented block.
func readmeCommands(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var commands []string
	for line := range strings.Lines(string(content)) {
		command, indented := strings.CutPrefix(line, "    ")
		if indented {
			commands = append(commands, strings.TrimSpace(command))
		} else if len(commands) > 0 {
			break
		}
	}
	if len(commands) != 2 {
		return nil, errors.New("the README's first block does not hold two commands")
	}
	return commands, nil
}
