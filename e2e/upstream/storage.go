package upstream

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	containers "github.com/google/go-containerregistry/pkg/registry"
	"github.com/sirupsen/logrus" //nolint:depguard // to silence distribution, which logs through it

	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // the driver configured below
)

// storage is the software behind the counting handler; it outlives stops of the server.
type storage struct {
	handler http.Handler
	close   func() error
}

func open(software Software) (storage, error) {
	switch software {
	case ContainerRegistry:
		handler := containers.New(containers.WithReferrersSupport(true), containers.Logger(silent()))
		return storage{handler: handler, close: func() error { return nil }}, nil
	case Distribution:
		return openDistribution()
	default:
		return storage{}, fmt.Errorf("no registry software %q: have %s and %s", software, Distribution, ContainerRegistry)
	}
}

// openDistribution builds distribution's own application. It panics on a configuration it does not like.
func openDistribution() (opened storage, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("distribution does not start: %v", cause)
		}
	}()
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"inmemory":    configuration.Parameters{},
			"delete":      configuration.Parameters{"enabled": true},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
	}
	config.HTTP.Secret = "one process, one secret" // signs the state of uploads
	logrus.SetOutput(io.Discard)                   // the only logger of distribution that can be reached from outside it
	app := handlers.NewApp(context.Background(), config)
	return storage{handler: app, close: app.Shutdown}, nil
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }
