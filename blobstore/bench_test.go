package blobstore_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
)

// BenchmarkIngest takes content in, down to the last fsync, and up to Verify, when it can be answered.
func BenchmarkIngest(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
		end  func(in *blobstore.Ingest) error
	}{
		{"2KB/durable", 2 << 10, (*blobstore.Ingest).Persist},
		{"2KB/verified", 2 << 10, func(in *blobstore.Ingest) error { in.Abort(nil); return nil }},
		{"32MB/durable", 32 << 20, (*blobstore.Ingest).Persist},
	} {
		b.Run(c.name, func(b *testing.B) {
			store := open(b, b.TempDir(), blobstore.Options{MemoryBytes: 64 << 20})
			data := storetest.Bytes("bench", c.size)
			b.SetBytes(int64(c.size))
			for i := 0; b.Loop(); i++ {
				copy(data, fmt.Sprint(i))
				in, err := store.Begin(ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(c.size)})
				if err != nil {
					b.Fatal(err)
				}
				for rest := data; len(rest) > 0; {
					n, err := in.Write(rest[:min(len(rest), 64<<10)])
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := in.Verify(); err != nil {
					b.Fatal(err)
				}
				if err := c.end(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens and reads 2 KB from memory and from disk, by all processors at once.
func BenchmarkOpen(b *testing.B) {
	for name, memory := range map[string]int64{"memory": 1 << 20, "disk": 0} {
		b.Run(name, func(b *testing.B) {
			store := open(b, b.TempDir(), blobstore.Options{MemoryBytes: memory})
			data := storetest.Bytes("bench", 2<<10)
			dgst := digest.FromBytes(data)
			storetest.Put(b, store, storetest.Describe(digest.SHA256, data), data)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					content, err := store.Open(dgst)
					if err == nil {
						_, err = content.WriteTo(io.Discard)
					}
					if err != nil {
						b.Fatal(err)
					}
					_ = content.Close()
				}
			})
		})
	}
}

// BenchmarkSend sends 32 MB from disk over loopback: by sendfile, and, for comparison, without.
func BenchmarkSend(b *testing.B) {
	store := open(b, b.TempDir(), blobstore.Options{})
	data := storetest.Bytes("bench", 32<<20)
	storetest.Put(b, store, storetest.Describe(digest.SHA256, data), data)
	for name, plain := range map[string]func(*blobstore.Content) io.Reader{
		"sendfile": func(c *blobstore.Content) io.Reader { return c },
		"copied":   func(c *blobstore.Content) io.Reader { return struct{ io.Reader }{c} },
	} {
		b.Run(name, func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}
			}()
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				content, err := store.Open(digest.FromBytes(data))
				if err == nil {
					_, err = io.CopyN(conn, plain(content), content.Size())
				}
				if err != nil {
					b.Fatal(err)
				}
				_ = content.Close()
			}
		})
	}
}
