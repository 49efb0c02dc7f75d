package fsm

import (
	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
)

// MaxCommandBytes bounds an encoded command: the descriptors of an index of 4 MiB, with room to spare.
const MaxCommandBytes = 8 << 20

// Encode returns a command as it stands in the log (message ocistern.log.v1.Command), by itself or in a batch. It fails
// with reason COMMAND_INVALID for what no node could decode: text that is not UTF-8, times outside the years 1 to 9999,
// too many bytes.
func Encode(command catalog.Command) ([]byte, error) {
	message, err := encodeCommand(command)
	if err != nil {
		return nil, err
	}
	// Deterministic, so that equal commands have equal bytes: the golden files rest on it, the running hash does not.
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, errdef.Wrap(errdef.CommandInvalid, err, "command %T cannot be encoded", command)
	}
	if len(encoded) > MaxCommandBytes {
		return nil, errdef.New(errdef.CommandInvalid, "command %T is %d bytes long", command, len(encoded)).
			WithRemedy("split it: at most %d bytes", MaxCommandBytes)
	}
	return encoded, nil
}

// Decode reads an encoded command. It fails with reason COMMAND_UNKNOWN for whatever it does not understand whole: bytes
// that are no command, another version, an unknown kind, an unknown value, or an unknown field at any depth. A field
// ignored here and obeyed by a newer node would make the two diverge. What it decodes may still be refused by the
// catalog, which every node does alike.
func Decode(encoded []byte) (catalog.Command, error) {
	d := newDecoder()
	return d.command(encoded)
}

func (d *decoder) command(encoded []byte) (catalog.Command, error) {
	if len(encoded) > MaxCommandBytes {
		return nil, errdef.New(errdef.CommandUnknown, "command is %d bytes long, at most %d are known",
			len(encoded), MaxCommandBytes)
	}
	message := &logv1.Command{}
	if err := proto.Unmarshal(encoded, message); err != nil {
		return nil, errdef.Wrap(errdef.CommandUnknown, err, "not a command")
	}
	command := d.kind(message)
	if err := d.finish(); err != nil {
		return nil, err
	}
	return command, nil
}
