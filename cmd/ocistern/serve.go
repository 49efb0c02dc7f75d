package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/node"
)

// newServeCommand runs one node in the foreground.
func newServeCommand() *cobra.Command {
	var (
		file, format string
		printOnly    bool
	)
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run one node",
		Long: "Run one node in the foreground until SIGTERM or SIGINT.\n\n" +
			"Every setting is a flag, a variable OCISTERN_* or a key of the YAML file, in this order of precedence.\n" +
			"Logs are JSON on standard error.",
		Example: "  ocistern serve --config /etc/ocistern/config.yaml\n" +
			"  ocistern serve --data-dir /tmp/o --cluster-expect 1 --upstream ghcr.io=https://ghcr.io\n" +
			"  ocistern serve --config config.yaml --print-config",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			flags, err := config.FlagValues(command.Flags())
			if err != nil {
				return err
			}
			parsed, values, err := config.Load(config.Sources{File: file, Environ: os.Environ(), Flags: flags})
			if err != nil {
				return err
			}
			if printOnly {
				return config.Print(command.OutOrStdout(), format, values)
			}
			return serve(command, parsed)
		},
	}
	command.Flags().StringVar(&file, "config", "", "YAML configuration file")
	command.Flags().BoolVar(&printOnly, "print-config", false,
		"print the effective configuration and its origins, start nothing")
	command.Flags().StringVarP(&format, "output", "o", "yaml", "format of --print-config: yaml or json")
	config.AddFlags(command.Flags())
	return command
}

// serve runs a node until a signal. Its failure goes to the log, where whoever runs nodes will look for it; the exit
// status tells the rest.
func serve(command *cobra.Command, parsed config.Config) error {
	logger := node.NewLogger(command.ErrOrStderr(), parsed.Name, parsed.LogLevel)
	slog.SetDefault(logger) // for libraries that know no other logger
	running, err := node.Start(parsed, node.Options{Version: version, Logger: logger})
	if err != nil {
		return logged(logger, "node cannot start", err)
	}
	if err := running.Run(command.Context()); err != nil {
		return logged(logger, "node has failed", err)
	}
	logger.Info("node has stopped")
	return nil
}

// loggedError was reported already: only its exit status is left to give.
type loggedError struct{ error }

// Unwrap returns the error that was logged.
func (e loggedError) Unwrap() error { return e.error }

func logged(logger *slog.Logger, message string, err error) error {
	logger.Error(message, "error", err.Error(), "reason", string(errdef.ReasonOf(err)))
	return loggedError{err}
}
