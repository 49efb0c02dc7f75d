package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// build describes this binary.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand() *cobra.Command {
	var output format
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			about := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, setting := range info.Settings {
					if setting.Key == "vcs.revision" {
						about.Revision = setting.Value
					}
				}
			}
			if output == formatJSON {
				return printJSON(command.OutOrStdout(), about)
			}
			words := []string{"ocistern", about.Version, about.Go, about.Platform, about.Revision}
			_, err := fmt.Fprintln(command.OutOrStdout(), strings.TrimSpace(strings.Join(words, " ")))
			return err
		},
	}
	output.register(command.Flags())
	return command
}
