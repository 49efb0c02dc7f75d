package snapshotfile

import (
	"encoding/hex"
	"io"
)

func hexOf(hash [32]byte) string { return hex.EncodeToString(hash[:]) }

// progressWriter tells how many bytes went through.
type progressWriter struct {
	to      io.Writer
	told    func(int64)
	written int64
}

// Write implements io.Writer.
func (w *progressWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.written += int64(n)
	w.told(w.written)
	return n, err
}
