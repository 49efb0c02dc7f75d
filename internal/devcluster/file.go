package devcluster

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ocistern/ocistern/internal/errdef"
)

// writeJSON replaces the file at path by rename. It does not sync: after a power failure the cluster is gone as well.
func writeJSON(path string, value any) error {
	encoded, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot encode %s", path)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot write %s", path)
	}
	_, writeErr := temporary.Write(append(encoded, '\n'))
	if err := errors.Join(writeErr, temporary.Close()); err != nil {
		return errors.Join(errdef.Wrap(errdef.Internal, err, "cannot write %s", path), os.Remove(temporary.Name()))
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return errors.Join(errdef.Wrap(errdef.Internal, err, "cannot write %s", path), os.Remove(temporary.Name()))
	}
	return nil
}

func readJSON(path string, value any) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.Wrap(errdef.NotFound, err, "no dev cluster").WithRemedy("start one with `ocistern dev`")
	}
	if err != nil {
		return errdef.Wrap(errdef.ConfigInvalid, err, "cannot read the addresses of the dev cluster")
	}
	if err := json.Unmarshal(content, value); err != nil {
		return errdef.Wrap(errdef.ConfigInvalid, err, "%s is damaged", path).
			WithRemedy("remove it and start the dev cluster again")
	}
	return nil
}
