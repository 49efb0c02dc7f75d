package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/testnode"
)

// exampleNodes stands for a running cluster that mirrors up.test/org/app:v1, an image with two signatures.
func exampleNodes() (endpoints []string, stop func()) {
	cluster := testnode.NewCluster()
	if _, err := cluster.PushSigned(context.Background(), "up.test/org/app", "v1", []byte("layer"), 2); err != nil {
		log.Fatal(err)
	}
	var nodes []*testnode.Node
	for _, name := range []string{"n1", "n2", "n3"} {
		node, err := testnode.Run(name, cluster)
		if err != nil {
			log.Fatal(err)
		}
		nodes, endpoints = append(nodes, node), append(endpoints, node.Address)
	}
	return endpoints, func() {
		for _, node := range nodes {
			node.Stop()
		}
	}
}

// An image and all its signatures are copied out of the cluster by oras-go, as from any registry.
func Example() {
	endpoints, stop := exampleNodes()
	defer stop()
	cluster, err := client.New(endpoints)
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	repository, tag, err := cluster.Open("up.test/org/app:v1")
	if err != nil {
		log.Fatal(err)
	}
	target := memory.New()
	image, err := oras.ExtendedCopy(context.Background(), repository, tag, target, tag, oras.DefaultExtendedCopyOptions)
	if err != nil {
		log.Fatal(err)
	}
	signatures, err := target.Predecessors(context.Background(), image)
	fmt.Println(image.MediaType, len(signatures), err)
	// Output: application/vnd.oci.image.manifest.v1+json 2 <nil>
}

func ExampleNew() {
	endpoints, stop := exampleNodes()
	defer stop()
	cluster, err := client.New(endpoints, client.WithTimeout(5*time.Second), client.WithTenant("team-a"))
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	repository, err := cluster.Repository("up.test/org/app")
	fmt.Println(repository.Name(), err)

	_, err = client.New([]string{"localhost"})
	fmt.Println(errors.Is(err, client.ErrConfigInvalid))
	// Output:
	// up.test/org/app <nil>
	// true
}

func ExampleRepository_Resolve() {
	endpoints, stop := exampleNodes()
	defer stop()
	cluster, err := client.New(endpoints)
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	repository, err := cluster.Repository("up.test/org/app")
	if err != nil {
		log.Fatal(err)
	}
	image, err := repository.Resolve(context.Background(), "v1")
	fmt.Println(image.MediaType, image.Size, err)
	_, err = repository.Resolve(context.Background(), "v2")
	fmt.Println(errors.Is(err, client.ErrNotFound))
	// Output:
	// application/vnd.oci.image.manifest.v1+json 520 <nil>
	// true
}

func ExampleRepository_Referrers() {
	endpoints, stop := exampleNodes()
	defer stop()
	cluster, err := client.New(endpoints)
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	repository, tag, err := cluster.Open("up.test/org/app:v1")
	if err != nil {
		log.Fatal(err)
	}
	image, err := repository.Resolve(context.Background(), tag)
	if err != nil {
		log.Fatal(err)
	}
	err = repository.Referrers(context.Background(), image, "application/vnd.cncf.notary.signature",
		func(signatures []ocispec.Descriptor) error {
			fmt.Println(len(signatures), "signatures")
			return nil
		})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 2 signatures
}
