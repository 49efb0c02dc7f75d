package dev

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// banner tells a person what runs, and what to try next.
func banner(ctx context.Context, options Options, dir string, f *fleet) string {
	var text strings.Builder
	leader := leaderOf(ctx, f)
	fmt.Fprintf(&text, "\nOcistern %s: a cluster of %d on this machine, for trying out\n\n", options.Version, len(f.nodes))
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, p := range f.nodes {
		role := ""
		if p.name == leader {
			role = "leader"
		}
		fmt.Fprintf(table, "  %s\tregistry http://%s\tgrpc %s\tadmin http://%s\tpid %d\t%s\n",
			p.name, p.listen.Registry, p.listen.GRPC, p.listen.Admin, p.command.Process.Pid, role)
	}
	_ = table.Flush() // into a strings.Builder, which does not fail
	if options.Data == "" {
		fmt.Fprintf(&text, "\nThe data in %s are temporary: they go when this stops (--data DIR keeps them).\n", dir)
	} else {
		fmt.Fprintf(&text, "\nThe data stay in %s.\n", dir)
	}
	fmt.Fprintf(&text, "Each node logs to %s.\n", filepath.Join(dir, "n*", logFile))
	for _, u := range options.mirrored {
		fmt.Fprintf(&text, "Read through %s with: %s resolve %s/REPOSITORY:TAG\n", u.Name, quoted(options.Command), u.Name)
	}
	if len(options.mirrored) == 0 {
		fmt.Fprintf(&text, "Nothing is mirrored yet: start with --upstream NAME=URL, for example ghcr.io=https://ghcr.io\n")
	}
	fmt.Fprintf(&text, "\nTry, in another terminal:\n")
	for _, command := range suggestions(options, f, leader) {
		fmt.Fprintf(&text, "  %s\n", command)
	}
	return text.String()
}

// suggestions returns three commands that work as they stand.
func suggestions(options Options, f *fleet, leader string) []string {
	first := f.nodes[0]
	commands := []string{
		quoted(options.Command) + " status",
		fmt.Sprintf("curl -s http://%s/metrics | grep ^ocistern_", first.listen.Admin),
	}
	for _, p := range f.nodes {
		if p.name == leader && len(f.nodes) > 2 {
			return append(commands, fmt.Sprintf("kill -9 %d; %s status   # another node takes over the lead",
				p.command.Process.Pid, quoted(options.Command)))
		}
	}
	return append(commands, fmt.Sprintf("curl -s http://%s/v2/", first.listen.Registry))
}

// quoted makes text one word of a shell.
func quoted(text string) string {
	if !strings.ContainsAny(text, " \t\n'\"\\$&;|<>()*?[]#~`!{}") {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
