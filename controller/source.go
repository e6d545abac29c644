package controller

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// asked is what all requests with a lab have in common.
type asked interface {
	GetSource() *tcplabv1.LabSource
	GetLab() *tcplabv1.Lab
	GetOverrides() []*tcplabv1.ParamOverride
}

// points makes the labs that are asked for, one for each parameter point,
// complete, valid and with every address assigned. Errors: LabInvalid with one
// violation for each mistake.
func points(req asked) ([]*tcplabv1.Lab, error) {
	expanded, err := expand(req)
	if err != nil {
		return nil, invalid(err)
	}
	for _, lab := range expanded {
		if err := labs.Assign(lab, nil); err != nil {
			return nil, invalid(err)
		}
	}
	return expanded, nil
}

// standingPoint makes the lab that shall stand, as points does; it has one point, and need
// not have experiments.
func standingPoint(req asked) (*tcplabv1.Lab, error) {
	lab, err := expandStanding(req)
	if err == nil {
		err = labs.Assign(lab, nil)
	}
	if err != nil {
		return nil, invalid(err)
	}
	return lab, nil
}

func expandStanding(req asked) (*tcplabv1.Lab, error) {
	if req.GetLab() != nil {
		lab, err := completeLab(req)
		if err != nil {
			return nil, err
		}
		return lab, labs.ValidateStanding(lab)
	}
	file, overrides, err := parse(req)
	if err != nil {
		return nil, err
	}
	return file.Stand(overrides)
}

func expand(req asked) ([]*tcplabv1.Lab, error) {
	if req.GetLab() != nil {
		lab, err := completeLab(req)
		if err != nil {
			return nil, err
		}
		return []*tcplabv1.Lab{lab}, labs.Validate(lab)
	}
	file, overrides, err := parse(req)
	if err != nil {
		return nil, err
	}
	return file.Expand(overrides)
}

// completeLab is the lab of a request that has no source.
func completeLab(req asked) (*tcplabv1.Lab, error) {
	if len(req.GetOverrides()) > 0 {
		return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "send the lab's source, or the lab as it should be",
			"a lab with nothing left to expand has no parameters to override")
	}
	lab := proto.CloneOf(req.GetLab())
	labs.Complete(lab)
	return lab, nil
}

// parse reads the source of a request.
func parse(req asked) (*labs.File, []labs.Override, error) {
	source := labs.Source{Name: req.GetSource().GetFileName(), Content: req.GetSource().GetContent(), Attachments: map[string][]byte{}}
	for _, attachment := range req.GetSource().GetAttachments() {
		source.Attachments[attachment.GetName()] = attachment.GetContent()
	}
	file, err := labs.Parse(source)
	if err != nil {
		return nil, nil, err
	}
	var overrides []labs.Override
	for _, o := range req.GetOverrides() {
		overrides = append(overrides, labs.Override{Name: o.GetName(), Values: o.GetValues()})
	}
	return file, overrides, nil
}

// permit refuses what the points' exec flows would start without permission, and returns what they
// need: labs that tcplab brings along have a permission of their own.
func permit(req asked, points []*tcplabv1.Lab, permission tcplabv1.ExecPermission) (tcplabv1.ExecPermission, error) {
	needs := tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED
	for _, lab := range points {
		needs = max(needs, labs.ExecNeeds(lab))
	}
	if needs <= permission {
		return needs, nil
	}
	var err error
	if req.GetLab() != nil {
		err = labs.Permit(req.GetLab(), permission)
	} else {
		file, overrides, parseErr := parse(req)
		if parseErr != nil {
			return needs, invalid(parseErr)
		}
		err = file.Permit(overrides, permission)
	}
	if err == nil {
		return needs, nil
	}
	refused := invalid(err)
	if e, ok := errors.AsType[*rpcerr.Error](refused); ok {
		e.Code, e.Reason = codes.PermissionDenied, rpcerr.NotPermitted
		e.Message = strings.Replace(e.Message, "the lab is wrong", "the lab is not permitted", 1)
	}
	return needs, refused
}

// invalid puts what package labs found wrong into the contract's form.
func invalid(err error) error {
	if _, ok := errors.AsType[*rpcerr.Error](err); ok {
		return err
	}
	refusal := rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "", "the lab is wrong: %w", err)
	var problems labs.Problems
	var violations labs.Violations
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			field := p.File
			if p.Line > 0 {
				field = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
			}
			refusal.Violations = append(refusal.Violations, rpcerr.Violation{Field: field, Description: withHint(p.Message, p.Hint)})
		}
	case errors.As(err, &violations):
		for _, v := range violations {
			refusal.Violations = append(refusal.Violations, rpcerr.Violation{Field: v.Field, Description: withHint(v.Message, v.Hint)})
		}
	}
	return refusal
}

func withHint(message, hint string) string {
	if hint == "" {
		return message
	}
	return fmt.Sprintf("%s (%s)", message, hint)
}
