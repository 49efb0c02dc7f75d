package fsm

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
)

// Request is an encoded command (Encode), to be applied once if it names a request.
type Request struct {
	catalog.Request
	Command []byte
}

// The numbers of fields in command.proto, for Pack; the golden files hold them.
const (
	commandVersion, commandBatch            protowire.Number = 1, 10
	batchRequests                           protowire.Number = 1
	requestID, requestSince, requestCommand protowire.Number = 1, 2, 3
)

// requestOverhead is the most that Pack adds to one command: its id, its index and three lengths.
const requestOverhead = 64

// maxEntryBytes bounds a log entry: the largest command can be packed.
const maxEntryBytes = MaxCommandBytes + requestOverhead

// PackedSize is about what a request takes in an entry, and never less.
func (r Request) PackedSize() int { return len(r.Command) + requestOverhead }

// Pack returns the log entry of several commands (a Command with a Batch), which only a cluster of LevelRequests
// understands. The commands are taken as they are. Their sizes together must not exceed that of the largest command.
func Pack(requests []Request) []byte {
	batch := 0
	for _, r := range requests {
		batch += protowire.SizeTag(batchRequests) + protowire.SizeBytes(r.size())
	}
	entry := make([]byte, 0, batch+2*requestOverhead)
	entry = appendVarint(entry, commandVersion, uint64(catalog.LevelRequests))
	entry = protowire.AppendTag(entry, commandBatch, protowire.BytesType)
	entry = protowire.AppendVarint(entry, uint64(batch))
	for _, r := range requests {
		entry = protowire.AppendTag(entry, batchRequests, protowire.BytesType)
		entry = protowire.AppendVarint(entry, uint64(r.size()))
		if r.ID != (catalog.RequestID{}) {
			entry = protowire.AppendBytes(protowire.AppendTag(entry, requestID, protowire.BytesType), r.ID[:])
		}
		if r.Since != 0 {
			entry = appendVarint(entry, requestSince, uint64(r.Since))
		}
		entry = protowire.AppendBytes(protowire.AppendTag(entry, requestCommand, protowire.BytesType), r.Command)
	}
	return entry
}

// size returns the bytes of the message Request. Each of its tags is one byte.
func (r Request) size() int {
	size := 1 + protowire.SizeBytes(len(r.Command))
	if r.ID != (catalog.RequestID{}) {
		size += 1 + protowire.SizeBytes(len(r.ID))
	}
	if r.Since != 0 {
		size += 1 + protowire.SizeVarint(uint64(r.Since))
	}
	return size
}

func appendVarint(to []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), value)
}

// decoded is one command of a log entry.
type decoded struct {
	command catalog.Command
	request catalog.Request
}

// entry decodes a log entry: one command, or a batch of them. It fails as Decode does, and then for all of the entry.
func (d *decoder) entry(encoded []byte) ([]decoded, error) {
	if len(encoded) > maxEntryBytes {
		return nil, errdef.New(errdef.CommandUnknown, "entry is %d bytes long, at most %d are known",
			len(encoded), maxEntryBytes)
	}
	message := &logv1.Command{}
	if err := proto.Unmarshal(encoded, message); err != nil {
		return nil, errdef.Wrap(errdef.CommandUnknown, err, "not a command")
	}
	var commands []decoded
	if batch := message.GetBatch(); batch != nil {
		commands = d.batch(message, batch)
	} else {
		commands = []decoded{{command: d.kind(message)}}
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return commands, nil
}

func (d *decoder) batch(message *logv1.Command, batch *logv1.Batch) []decoded {
	d.check(message)
	d.check(batch)
	d.version(message, catalog.LevelRequests)
	if len(batch.GetRequests()) == 0 {
		d.fail("the batch is empty")
	}
	commands := make([]decoded, 0, len(batch.GetRequests()))
	for _, m := range batch.GetRequests() {
		d.check(m)
		commands = append(commands, decoded{
			command: d.kind(m.GetCommand()), request: catalog.Request{ID: d.requestID(m.GetId()), Since: catalog.LogIndex(m.GetSince())},
		})
	}
	return commands
}

// requestID reads an id that may be left out.
func (d *decoder) requestID(encoded []byte) catalog.RequestID {
	var id catalog.RequestID
	if len(encoded) != 0 && len(encoded) != len(id) {
		d.fail("request id of %d bytes", len(encoded))
	}
	copy(id[:], encoded)
	return id
}

// version refuses a command whose kind this build does not know at its version.
func (d *decoder) version(message *logv1.Command, since catalog.FeatureLevel) {
	switch version := catalog.FeatureLevel(message.GetVersion()); {
	case version > MaxLevel:
		d.fail("command of version %d, this build knows %d", version, MaxLevel)
	case version != since:
		d.fail("command of version %d, its kind is of version %d", version, since)
	}
}
