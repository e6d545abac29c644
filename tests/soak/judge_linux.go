package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// judge looks at what became of everything. No process is under way any more.
func (s *soak) judge(ctx context.Context) error {
	errs := s.errors
	counts := map[string]int{}
	found, err := s.stored(ctx, counts)
	errs = append(errs, err)
	for id, said := range s.ended {
		if state, ok := found[id]; !ok || state != said.State {
			errs = append(errs, fmt.Errorf("run %s had ended as %s, and is stored as %q", id, said.State, state))
		}
	}
	for _, host := range s.hosts {
		links, err := s.fleet.Links(host)
		if err != nil || !slices.Equal(links, []string{"lo", "eth0"}) {
			errs = append(errs, fmt.Errorf("%s has the interfaces %v, error %w", host, links, err))
		}
		waiting, err := s.spooled(host, found)
		errs = append(errs, err)
		counts["results that wait on a host"] += waiting
	}
	left, err := s.fleet.Left()
	if err != nil || len(left) > 0 {
		errs = append(errs, fmt.Errorf("processes are left: %v, error %w", left, err))
	}
	fmt.Fprintf(os.Stdout, "\n%d runs were asked for; tcplab run ended with %v\n", s.asked, s.exits)
	for _, what := range []map[string]int{s.faults, counts} {
		for _, name := range slices.Sorted(maps.Keys(what)) {
			fmt.Fprintf(os.Stdout, "%6d  %s\n", what[name], name)
		}
	}
	return errors.Join(errs...)
}

// stored reads what the controller has, counts it, and checks that it is whole.
func (s *soak) stored(ctx context.Context, counts map[string]int) (map[string]string, error) {
	dir, err := databaseIn(s.fleet.Folder(controller))
	if err != nil {
		return nil, err
	}
	st, err := store.OpenReader(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	found := map[string]string{}
	var errs []error
	for token := ""; ; {
		runs, next, err := st.Runs(ctx, store.Query{PageSize: 100, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, r := range runs {
			found[r.GetId()] = r.GetState().String()
			counts["runs "+r.GetState().String()]++
			if r.GetFailure() != "" {
				by := "failed by " + r.GetFailureReason().String()
				if counts[by]++; counts[by] <= 3 {
					fmt.Fprintf(os.Stdout, "%s %v: %.300s\n", r.GetId(), r.GetHosts(), r.GetFailure())
				}
			}
			errs = append(errs, whole(ctx, st, r, counts))
		}
		if token = next; token == "" {
			return found, errors.Join(errs...)
		}
	}
}

// whole checks that a run has all trials and files that it says it has.
func whole(ctx context.Context, st *store.Store, r *tcplabv1.Run, counts map[string]int) error {
	done, succeeded := uint32(0), r.GetState() == tcplabv1.RunState_RUN_STATE_SUCCEEDED
	var errs []error
	err := st.Trials(ctx, r.GetId(), 0, func(t *tcplabv1.Trial) (bool, error) {
		if t.GetState() == tcplabv1.RunState_RUN_STATE_SUCCEEDED {
			counts["results stored"]++
			done++
		}
		if !store.Ended(t.GetState()) || succeeded && t.GetResult() == nil {
			errs = append(errs, fmt.Errorf("trial %s is %s, of a run that is %s", t.GetId(), t.GetState(), r.GetState()))
		}
		for _, a := range t.GetResult().GetArtifacts() {
			counts["files stored"]++
			if err := sound(ctx, st, t, a); err != nil {
				errs = append(errs, fmt.Errorf("file %s of trial %s: %w", a.GetName(), t.GetId(), err))
			}
		}
		return true, nil
	})
	if succeeded && done != r.GetTrialsCount() {
		errs = append(errs, fmt.Errorf("run %s succeeded with %d of %d trials", r.GetId(), done, r.GetTrialsCount()))
	}
	return errors.Join(append(errs, err)...)
}

// sound checks a file against its hash.
func sound(ctx context.Context, st *store.Store, t *tcplabv1.Trial, a *tcplabv1.Artifact) error {
	file, err := st.OpenArtifact(ctx, t.GetRunId(), t.GetNumber(), a.GetName())
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	if err = errors.Join(err, file.Close()); err == nil && !bytes.Equal(hash.Sum(nil), a.GetSha256()) {
		err = errors.New("its content is another")
	}
	return err
}

// spooled counts the results that wait on a host. Each is of a run that the controller knows: those of runs that failed may wait.
func (s *soak) spooled(host string, found map[string]string) (n int, err error) {
	var errs []error
	err = filepath.WalkDir(s.fleet.Folder(host), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != ".result" {
			return err
		}
		n++
		trial := filepath.Base(filepath.Dir(path))
		id, _, _ := bytes.Cut([]byte(trial), []byte("."))
		if found[string(id)] == "" {
			errs = append(errs, fmt.Errorf("%s has a result of trial %s, of a run that the controller does not have", host, trial))
		}
		return nil
	})
	return n, errors.Join(append(errs, err)...)
}

// databaseIn finds the folder of the database in a state directory.
func databaseIn(root string) (dir string, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "tcplab.db" {
			dir = filepath.Dir(path)
		}
		return err
	})
	if err == nil && dir == "" {
		err = fmt.Errorf("no database is in %s", root)
	}
	return dir, err
}
