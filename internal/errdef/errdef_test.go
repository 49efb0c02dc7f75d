package errdef

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	oras "oras.land/oras-go/v2/errdef"
)

// Every row survives the wire: reason, message, remedy and sentinel.
func TestEveryRowCrossesGRPC(t *testing.T) {
	seen := map[Reason]bool{}
	for _, r := range table() {
		if seen[r.reason] {
			t.Errorf("reason %s has two rows", r.reason)
		}
		seen[r.reason] = true
		sent := fmt.Errorf("layer: %w", New(r.reason, "what %d", 7).WithRemedy("do this"))
		got := FromGRPC(ToGRPC(sent))
		if ReasonOf(got) != r.reason || !errors.Is(got, r.sentinel) {
			t.Errorf("%s came back as %v (%s)", r.reason, got, ReasonOf(got))
		}
		var typed *Error
		if !errors.As(got, &typed) || typed.Remedy != "do this" {
			t.Errorf("%s lost its remedy: %+v", r.reason, got)
		}
		if code, status := HTTP(got); code == "" || status < 400 {
			t.Errorf("%s has HTTP answer %q %d", r.reason, code, status)
		}
		if ExitCode(got) == 0 {
			t.Errorf("%s exits with 0", r.reason)
		}
	}
}

func TestReasonOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{nil, ""},
		{errors.New("anything"), Internal},
		{fmt.Errorf("x: %w", oras.ErrNotFound), NotFound},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), Deadline},
		{context.Canceled, Canceled},
		{Wrap(UpstreamTimeout, context.DeadlineExceeded, "slow"), UpstreamTimeout},
	} {
		if got := ReasonOf(c.err); got != c.want {
			t.Errorf("ReasonOf(%v) = %s, want %s", c.err, got, c.want)
		}
	}
}

func TestUnknownReasonFromANewerNodeIsInternal(t *testing.T) {
	if err := New("FROM_THE_FUTURE", "x"); !errors.Is(err, ErrInternal) || ExitCode(err) != exitError {
		t.Errorf("a reason this build does not know must be internal, got exit %d", ExitCode(err))
	}
}

// A message may quote what a caller or an upstream sent.
func TestAnyMessageCrossesGRPC(t *testing.T) {
	for _, text := range []string{"\xff\xfe", strings.Repeat("\u20ac", maxMessage)} {
		sent := New(NotFound, "no %s", text).WithRemedy("not %s", text)
		st := status.Convert(ToGRPC(sent))
		if _, err := proto.Marshal(st.Proto()); err != nil {
			t.Errorf("%.20q cannot be sent: %v", text, err)
		}
		if got := FromGRPC(st.Err()); ReasonOf(got) != NotFound || len(got.Error()) > 3*maxMessage {
			t.Errorf("%.20q came back as %.100v", text, got)
		}
	}
}
