package config

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/ocistern/ocistern/internal/errdef"
)

// AddFlags defines one flag for each setting. Defaults are told but not set, so that a flag counts only when given.
func AddFlags(flags *pflag.FlagSet) {
	for _, s := range Settings() {
		usage := fmt.Sprintf("%s [%s]", s.Doc, s.Env())
		switch {
		case s.structure != nil:
			flags.StringArray(s.Flag(), nil, usage+" (repeatable)"+s.columnsUsage())
		case s.List:
			flags.StringArray(s.Flag(), nil, usage+" (repeatable)")
		case s.Default != "":
			flags.String(s.Flag(), "", fmt.Sprintf("%s (default %s)", usage, s.Default))
		default:
			flags.String(s.Flag(), "", usage)
		}
	}
}

// columnsUsage documents the keys of a structured list, one a line.
func (s Setting) columnsUsage() string {
	text := ""
	for _, c := range s.structure.columns {
		text += fmt.Sprintf("\n  %-21s %s", c.Name, c.Doc)
	}
	return text
}

// FlagValues returns the values of the flags that were given, for Sources.
func FlagValues(flags *pflag.FlagSet) (map[string][]string, error) {
	given := map[string][]string{}
	for _, s := range Settings() {
		flag := flags.Lookup(s.Flag())
		if flag == nil || !flag.Changed {
			continue
		}
		if !s.List {
			given[s.Flag()] = []string{flag.Value.String()}
			continue
		}
		texts, err := flags.GetStringArray(s.Flag())
		if err != nil {
			return nil, errdef.Wrap(errdef.Internal, err, "flag --%s", s.Flag())
		}
		given[s.Flag()] = texts
	}
	return given, nil
}
